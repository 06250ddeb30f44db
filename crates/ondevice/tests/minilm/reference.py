#!/usr/bin/env python3
"""Writes reference.json: fifty texts, and what the reference implementation makes of them.

    pip install sentence-transformers
    enigma models pull all-minilm-l6-v2        # prints the folder
    python3 reference.py FOLDER

The vectors are those of sentence-transformers, in float32, little-endian, in base64. The folder needs what sentence-transformers
reads besides the three files of ours: modules.json, sentence_bert_config.json, 1_Pooling/config.json, tokenizer_config.json and
special_tokens_map.json, from the same place of the model hub (the Python package that our list of weights names has them too).
"""

import base64
import json
import pathlib
import sys

import sentence_transformers
import torch

LONG = (
    "A lighthouse keeper writes in his book every evening: the wind, the ships, the state of the lamp. On some evenings nothing "
    "has happened, and he writes that too. "
)

TEXTS = [
    "This is an example sentence.",
    "Each sentence is converted.",
    "The cat sits outside.",
    "A man is playing guitar.",
    "The new movie is awesome!",
    "The new opera is tedious?",
    "How do I reset my password?",
    "I forgot my password and cannot log in.",
    "Where can I find last month's invoice?",
    "Please cancel my subscription at the end of the billing period.",
    "Our refund policy covers purchases made within 30 days.",
    "Shipping to Norway takes five to seven working days.",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    "a",
    "?",
    "...!?;:",
    "42",
    "3.14159 + 2.71828 = 5.85987",
    "On 2024-02-29 at 23:59:60 UTC, version v1.2.3-rc.4+build.567 was released.",
    "Mitochondria are the powerhouse of the cell.",
    "Photosynthesis converts light energy into chemical energy stored in glucose.",
    "In 1969 Apollo 11 landed on the Moon; Armstrong and Aldrin spent two and a quarter hours outside.",
    "The derivative of sin(x) is cos(x), and the integral of cos(x) is sin(x) + C.",
    "fn main() { println!(\"Hello, {}!\", name); } // a comment",
    "SELECT tenant_id, COUNT(*) FROM documents WHERE deleted_at IS NULL GROUP BY tenant_id;",
    "https://example.com/a/b?c=d&e=f%20g#h and mail@example.com",
    "{\"key\": [1, 2, 3], \"nested\": {\"empty\": null}}",
    "Größere Straßen in Zürich führen über die Brücke.",
    "L'été dernier, nous avons mangé des crêpes à la crème brûlée.",
    "El niño comió jalapeños en la montaña.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "敏捷的棕色狐狸跳过了懒狗。",
    "いろはにほへと ちりぬるを、東京タワー。",
    "키스의 고유조건은 입술끼리 만나야 한다.",
    "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت.",
    "दो कुत्ते पार्क में खेल रहे हैं।",
    "Emoji: 🙂🚀👩‍👩‍👧‍👦🇩🇪 and a heart ❤️",
    "Combining: e\u0301 a\u0308 n\u0303, ligature \ufb01, full width \uff21\uff22\uff23",
    "tabs\tand\r\nnew lines\n\n  and   many    spaces",
    "zero\u200bwidth, soft\u00adhyphen, no-break\u00a0space, \u0007bell and a null\u0000byte",
    "[CLS] special [SEP] tokens [MASK] in the text [PAD] [UNK]",
    "x" * 120,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "Contracts: \u00a7 12(3)(b)\u2014\u201cforce majeure\u201d\u2026 \u20ac1,000.00 \u2248 $1,080\u00bd",
    LONG * 3,
    LONG * 12,
    "begin " + "word " * 400 + "end",
]


def main() -> None:
    assert len(TEXTS) == len(set(TEXTS)) == 50
    torch.manual_seed(0)
    model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
    vectors = model.encode(TEXTS, batch_size=16, convert_to_numpy=True, normalize_embeddings=True)
    assert vectors.shape == (50, 384) and vectors.dtype == "float32"
    rows = [
        json.dumps({"text": text, "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode()}, ensure_ascii=True)
        for text, vector in zip(TEXTS, vectors)
    ]
    made_with = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    out = pathlib.Path(__file__).with_name("reference.json")
    head = f'{{"model": "sentence-transformers/all-MiniLM-L6-v2", "madeWith": "{made_with}", "sentences": [\n'
    out.write_text(head + ",\n".join(rows) + "\n]}\n")


if __name__ == "__main__":
    main()
