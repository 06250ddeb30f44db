#!/usr/bin/env python3
"""Builds data/passages.jsonl from the unpacked sources that README.md names.

    extract.py RUST_LIBRARY DJANGO FACTBOOK [--check]

RUST_LIBRARY is the `library` folder of the Rust sources, DJANGO the folder of the unpacked source package, FACTBOOK that of the
unpacked npm package. With --check nothing is written, and the exit code says whether the file is what would be written.

The text of a passage is verbatim, but for white space, mark-up, code blocks, tables, and a last sentence that only announces
what was left out. What is taken is decided by the tables below and by length alone.
"""

import collections
import json
import pathlib
import re
import sys
import textwrap

SHORTEST, FULL, LONGEST = 40, 80, 150
# Of two passages of which more than this part of the word triples is shared, the later one is left out.
ALIKE = 0.4

OUT = pathlib.Path(__file__).resolve().parent / "data" / "passages.jsonl"

# The files of the Rust sources, with the module as users name it: of `module`, the documentation of the module itself is taken;
# of `items`, that of its types, traits and functions too; of `all`, also that of their methods.
RUST = [
    line.split()
    for line in """
    items alloc/src/rc.rs std::rc
    module alloc/src/fmt.rs std::fmt
    module core/src/cell.rs std::cell
    module core/src/iter/mod.rs std::iter
    module std/src/collections/mod.rs std::collections
    all std/src/env.rs std::env
    items std/src/fs.rs std::fs
    module std/src/io/mod.rs std::io
    items std/src/net/tcp.rs std::net
    module std/src/path.rs std::path
    items std/src/process.rs std::process
    module std/src/sync/mod.rs std::sync
    items std/src/sync/mpsc.rs std::sync::mpsc
    items std/src/sync/poison.rs std::sync::poison
    items std/src/sync/poison/condvar.rs std::sync
    module std/src/thread/mod.rs std::thread
    items std/src/thread/scoped.rs std::thread
    all std/src/time.rs std::time
    """.strip().splitlines()
]

# The files of Django's documentation.
DJANGO = """
howto/deployment/checklist internals/release-process ref/clickjacking ref/csrf topics/conditional-view-processing
topics/security topics/signing
""".split()

# The regions and fields of the World Factbook.
FACTBOOK_REGIONS = ["antarctica", "australia-oceania", "central-america-n-caribbean", "north-america", "oceans"]
# The names that the package lacks or has cut short.
FACTBOOK_NAMES = {
    "cc": "Curacao",
    "dr": "Dominican Republic",
    "oo": "Southern Ocean",
    "sk": "Sint Maarten",
    "um": "United States Pacific Island Wildlife Refuges",
    "xo": "Indian Ocean",
    "xq": "Arctic Ocean",
    "zh": "Atlantic Ocean",
    "zn": "Pacific Ocean",
}
FACTBOOK_FIELDS = [
    ("background", ("Introduction", "Background")),
    ("geography", ("Geography", "Geography - note")),
    ("volcanism", ("Geography", "Natural hazards", "volcanism")),
    ("flag", ("Government", "Flag description")),
    ("anthem", ("Government", "National anthem", "note")),
]


# Passages out of paragraphs


def count(text):
    return len(text.split())


def without_lead_in(text):
    """Drops last sentences that only announce what followed them, such as a code block."""
    text = text.strip()
    while text.endswith((":", ",", "e.g.", "i.e.")):
        ends = [match.end() for match in re.finditer(r"(?<!e\.g)(?<!i\.e)(?<=\S)[.?][)\"']? ", text)]
        text = text[: ends[-1]].strip() if ends else ""
    return text


def passages(paragraphs):
    """Joins neighbouring paragraphs, pairs of heading and text, into passages: pairs of the first heading and the text.

    A passage is closed when it has FULL words, when the next paragraph does not fit, or at a heading once it has SHORTEST
    words; a heading inside of it stays in the text. What stays too short goes to the passage before it under the same heading,
    if there is room, and else is left out.
    """
    done, open_, under, last = [], [], None, None

    def close():
        nonlocal open_
        text = without_lead_in(" ".join(open_))
        if count(text) >= SHORTEST:
            done.append([under, text, last])
        elif text and done and done[-1][2] == under == last and count(done[-1][1]) + count(text) <= LONGEST:
            done[-1][1] += " " + text
        open_ = []

    for heading, text in paragraphs:
        size = count(" ".join(open_))
        if open_ and (size >= FULL or size + count(text) > LONGEST or (heading != last and size >= SHORTEST)):
            close()
        if count(text) > LONGEST:
            continue
        if not open_:
            under = heading
        elif heading and heading != last:
            text = heading + (" " if heading.endswith(("?", "!", ".")) else ": ") + text
        last = heading
        open_.append(text)
    close()
    return [(heading, text) for heading, text, _ in done]


def plain(text):
    """White space made single."""
    return " ".join(text.split())


# Rust: documentation comments in Markdown

RUST_ITEM = re.compile(
    r"(?:pub )?(?:default |const |async |unsafe |extern \"\w+\" |auto )*"
    r"(?:fn|struct|enum|union|trait|type|const|static|mod|macro|macro_rules!)\s+(\w+)"
)

CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"\[([^\[\]]+)\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\]]*\])?")
# Tables, HTML, comments, footnotes, rules and the targets of links.
NOT_PROSE = re.compile(r"\[[^\]]+\]:(\s|$)|\||</?div|<!--|\[\^|<[^<>]*>$|[-=*]{3,}$")


def markdown(lines):
    """The paragraphs of Markdown, as pairs of heading and text; headings of examples hide what is under them."""
    found, open_, heading, fence = [], [], None, None

    def close():
        text = " ".join(open_)
        open_.clear()
        # Code is set aside while the mark-up around it is taken away.
        code = []
        text = CODE.sub(lambda span: code.append(span[2].strip()) or f"\0{len(code) - 1}\0", text)
        text = re.sub(r"!\[[^\]]*\]\([^)]*\)|\[\^\w+\]|</?(?:code|pre|sup|sub|br|b|i|em)>", "", text)
        text = LINK.sub(r"\1", text)
        text = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"\1", text)
        text = re.sub(r"(?<![\w*])([*_])(?=[^\s*_])([^*_]+?)(?<=\S)\1(?![\w*])", r"\2", text)
        text = re.sub(r"\\(?=[^\w\s])", "", text)
        text = plain(re.sub("\0(\\d+)\0", lambda mark: code[int(mark[1])], text))
        if text and not (heading or "").startswith("Example"):
            found.append((heading, text))

    for line in lines:
        bare = re.sub(r"^(> ?)+", "", line.strip())
        mark = re.match(r"(```+|~~~+)", bare)
        if fence:
            fence = None if mark and bare.startswith(fence) else fence
            continue
        if mark:
            fence = mark[1]
            close()
            if found:
                found[-1] = (found[-1][0], without_lead_in(found[-1][1]))
            continue
        if NOT_PROSE.match(bare):
            close()
            continue
        title = re.match(r"#{1,6} (.+)", bare)
        item = re.match(r"(?:[-*+]|\d+[.)]) +(.*)", bare)
        if title:
            close()
            heading = plain(LINK.sub(r"\1", title[1].replace("`", "").replace("*", ""))).rstrip("#: ")
        elif not bare:
            close()
        elif item:
            close()
            open_.append(item[1])
        else:
            open_.append(bare)
    close()
    return [(heading, text) for heading, text in found if text]


def rust_docs(path):
    """The documentation in a source file: pairs of item, None for the module, and lines."""
    module, comment, owner, docs = [], [], None, []
    lines = path.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        bare = line.strip()
        at += 1
        if line.startswith("//!"):
            module.append(bare[3:])
        elif bare.startswith("///") and not bare.startswith("////"):
            comment.append(bare[3:])
        elif bare.startswith("//") or not bare:
            continue
        elif bare.startswith("#["):
            # An attribute may take several lines.
            depth = bare.count("[") - bare.count("]")
            while depth > 0 and at < len(lines):
                depth += lines[at].count("[") - lines[at].count("]")
                at += 1
        else:
            if line.startswith(("impl", "unsafe impl", "pub trait", "pub unsafe trait", "pub const trait")):
                header = line
                while "{" not in header and at < len(lines):
                    header += " " + lines[at].strip()
                    at += 1
                header = header.split("{")[0].replace("->", "")
                while "<" in header and (short := re.sub(r"<[^<>]*>", "", header)) != header:
                    header = short
                header = header.split(" where")[0]
                if "trait " in header:
                    owner = (RUST_ITEM.match(header) or [None, None])[1]
                    name = owner
                    if comment:
                        docs.append((name, comment))
                else:
                    owner = header.split(" for ")[-1].split()[-1] if header.split() else None
                    owner = owner if owner and re.fullmatch(r"\w+", owner) and " for " not in header else None
            elif line.startswith("}"):
                owner = None
            else:
                item = RUST_ITEM.match(bare)
                shown = bare.startswith(("pub ", "macro_rules!")) or (line.startswith("    fn") and owner)
                inside = line.startswith(" ")
                if item and shown and comment and not bare.startswith("pub(") and (owner or not inside):
                    docs.append((f"{owner}::{item[1]}" if inside else item[1], comment))
            comment = []
    return [(None, module), *docs]


def rust(library):
    for which, file, module in RUST:
        for item, lines in rust_docs(library / file):
            if item and (which == "module" or which == "items" and "::" in item):
                continue
            name = f"{module}::{item}" if item else module
            for heading, text in passages(markdown(textwrap.dedent("\n".join(lines)).splitlines())):
                yield "rust", name, heading, text


# Django: reStructuredText

# Directives whose content is left out.
LEFT_OUT = """
code-block console contents csv-table currentmodule deprecated figure highlight image index list-table literalinclude module
snippet table toctree versionadded versionchanged
""".split()
UNDERLINE = re.compile(r"([=\-~^*\"'])\1{2,}")
ITEM = re.compile(r"(?:[-*]|#\.|\d+\.) +(.*)")


def rst_text(text):
    text = re.sub(r":rfc:`(\d+)#section-([\d.]+)`", r"RFC \1 Section \2", text)
    text = re.sub(r":rfc:`(\d+)`", r"RFC \1", text)
    text = re.sub(r":[\w:+-]+:`[~!]?([^`<>]+?)\s*<[^`]*>`", r"\1", text)
    text = re.sub(r":[\w:+-]+:`~([^`]*\.)?([^`.]+)`", r"\2", text)
    text = re.sub(r":[\w:+-]+:`!?([^`]+)`", r"\1", text)
    text = re.sub(r"``(.+?)``", r"\1", text)
    text = re.sub(r"`([^`<>]+?)\s*<[^`]*>`__?", r"\1", text)
    text = re.sub(r"`([^`]+)`(__?)?", r"\1", text)
    text = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])\*(\S(?:[^*]*?\S)?)\*(?![\w*])", r"\1", text)
    text = re.sub(r"\b(\w+)_(?=[\s.,)]|$)", r"\1", text)
    text = re.sub(r"\s*\[\d+\]_?", "", text)
    return plain(text.replace("\\ ", "").replace("\\", ""))


def rst(lines):
    """The title and the paragraphs of reStructuredText, these as pairs of heading and text; under the title there is none."""
    found, open_, headings = [], [], []
    at = 0

    def close():
        text = rst_text(" ".join(open_))
        open_.clear()
        if text:
            found.append((headings[-1] if len(headings) > 1 else None, text))

    def announced():
        """What was left out was announced by the paragraph before it."""
        if found:
            found[-1] = (found[-1][0], without_lead_in(found[-1][1]))

    def indent(line):
        return len(line) - len(line.lstrip())

    def skip(depth):
        nonlocal at
        while at < len(lines) and (not lines[at].strip() or indent(lines[at]) > depth):
            at += 1

    while at < len(lines):
        line = lines[at]
        bare = line.strip()
        at += 1
        directive = re.match(r"\.\. ([\w:-]+?)::(?: |$)(.*)", bare)
        below = lines[at].strip() if at < len(lines) else ""
        if not bare or UNDERLINE.fullmatch(bare):
            close()
        elif UNDERLINE.fullmatch(below) and indent(line) == 0 and len(below) >= len(bare):
            close()
            headings.append(rst_text(bare))
            at += 1
        elif directive:
            close()
            if directive[1] in LEFT_OUT:
                if directive[1] in ("code-block", "console"):
                    announced()
                skip(indent(line))
        elif bare.startswith(".. "):
            close()
            skip(indent(line))
        elif re.match(r":[\w-]+:(\s|$)", bare):
            close()
        else:
            item = ITEM.match(bare)
            # A definition is indented more than its term; so are the further lines of an item of a list.
            before = lines[at - 2]
            if item or (open_ and indent(line) != indent(before) and not ITEM.match(before.strip())):
                close()
            text = item[1] if item else bare
            if text.endswith("::"):
                open_.append(text[:-2] if text == "::" else text[:-1])
                close()
                announced()
                skip(indent(line))
            else:
                open_.append(text)
    close()
    return headings[0], [(heading, text) for heading, text in found if text]


def django(root):
    for name in DJANGO:
        lines = (root / "docs" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        title, paragraphs = rst(lines)
        for heading, text in passages(paragraphs):
            yield "django", name, f"{title}: {heading}" if heading else title, text


# The World Factbook: JSON


def factbook(root):
    for region in FACTBOOK_REGIONS:
        for path in sorted((root / region).glob("*.json")):
            country = json.loads(path.read_text(encoding="utf-8"))
            names = country.get("Government", {}).get("Country name", {})
            forms = [names.get(f"conventional {length} form", {}).get("text") for length in ("short", "long")]
            name = FACTBOOK_NAMES.get(path.stem) or next(form for form in forms if form and form.lower() != "none")
            for label, fields in FACTBOOK_FIELDS:
                value = country
                for field in fields:
                    value = (value or {}).get(field)
                text = plain((value or {}).get("text") or "")
                if SHORTEST <= count(text) <= LONGEST:
                    yield "factbook", name, label, text


# The whole


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def triples(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def alike(one, other):
    return len(one & other) / max(1, min(len(one), len(other)))


def collect(library, django_root, factbook_root):
    kept, seen, numbers, stats = [], [], collections.Counter(), collections.Counter()
    for source in (rust(library), django(django_root), factbook(factbook_root)):
        for origin, name, heading, text in source:
            marks = triples(text)
            if any(alike(marks, other) > ALIKE for other in seen):
                stats[origin, "near duplicates"] += 1
                continue
            seen.append(marks)
            stem = slug(f"{origin} {name} {heading}" if origin == "factbook" else f"{origin} {name}")
            numbers[stem] += 1
            stats[origin, "passages"] += 1
            kept.append(
                {
                    "id": stem if origin == "factbook" else f"{stem}-{numbers[stem]}",
                    "title": heading if origin == "django" else f"{name}: {heading}" if heading else name,
                    "text": text,
                }
            )
    return kept, stats


def main(arguments):
    check = "--check" in arguments
    paths = [pathlib.Path(argument) for argument in arguments if argument != "--check"]
    if len(paths) != 3:
        sys.exit(__doc__)
    kept, stats = collect(*paths)
    written = "".join(json.dumps(passage, ensure_ascii=False) + "\n" for passage in kept)
    for (origin, what), number in sorted(stats.items()):
        print(f"{origin}: {number} {what}")
    if check:
        sys.exit(OUT.read_text(encoding="utf-8") != written)
    OUT.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
