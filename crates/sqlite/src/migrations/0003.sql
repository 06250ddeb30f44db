-- Documents in chunks, with their vectors and words; and answers that are kept for a while.

CREATE TABLE corpus (
    tenant     TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    -- Of what is published.
    documents  INTEGER NOT NULL,
    chunks     INTEGER NOT NULL,
    words      INTEGER NOT NULL,
    -- Where the vectors are; empty while there are no documents.
    model      TEXT,
    dimensions INTEGER,
    PRIMARY KEY (tenant)
) STRICT, WITHOUT ROWID;

-- The version of each document that is found.
CREATE TABLE corpus_document (
    tenant   TEXT    NOT NULL,
    document TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    PRIMARY KEY (tenant, document)
) STRICT, WITHOUT ROWID;

-- A number is never used again: what an index still says of an old one must not become true of a new one.
CREATE TABLE corpus_version (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     TEXT    NOT NULL,
    version    BLOB    NOT NULL,
    state      INTEGER NOT NULL, -- 0: staged, 1: published, 2: to be removed
    at         INTEGER NOT NULL, -- when its last chunk was staged, or when it was published
    document   TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    dimensions INTEGER NOT NULL,
    chunks     INTEGER NOT NULL,
    words      INTEGER NOT NULL,
    source     TEXT,
    title      TEXT,
    url        TEXT,
    metadata   TEXT,
    UNIQUE (tenant, version)
) STRICT;

-- There are few of these at any time, and every search leaves them out.
CREATE INDEX corpus_version_unseen ON corpus_version (tenant, state, at) WHERE state <> 1;

CREATE TABLE corpus_chunk (
    tenant  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    words   INTEGER NOT NULL,
    text    TEXT    NOT NULL,
    PRIMARY KEY (tenant, number, ordinal)
) STRICT;

-- The vectors of some chunks that follow each other, as they are; and in short, so that all of a tenant can be looked through.
-- Each begins with the ordinal of its chunk (crates/sqlite/src/corpus/codes.rs).
CREATE TABLE corpus_vectors (
    tenant  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    vectors BLOB    NOT NULL,
    PRIMARY KEY (tenant, number, part)
) STRICT;

CREATE TABLE corpus_codes (
    tenant TEXT    NOT NULL,
    number INTEGER NOT NULL,
    part   INTEGER NOT NULL,
    codes  BLOB    NOT NULL,
    PRIMARY KEY (tenant, number, part)
) STRICT;

-- Which words are in which chunks. A word is written as tenant:word, so no tenant's words are another's; a row is the chunk
-- number * 65536 + ordinal; and the column tells how the word occurs in it (`Occurrence` in crates/core/src/retrieval/bm25.rs).
-- The texts themselves are kept in corpus_chunk alone.
CREATE VIRTUAL TABLE corpus_words USING fts5 (
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15, w16, w17, w18, w19, w20, w21, w22, w23, w24, w25,
    w26, w27, w28, w29, w30, w31, w32, w33, w34, w35, w36, w37, w38, w39, w40, w41, w42, w43, w44, w45, w46, w47, w48, w49,
    w50, w51, w52, w53, w54, w55, w56, w57, w58, w59, w60, w61, w62, w63, w64, w65, w66, w67, w68, w69, w70, w71, w72, w73,
    w74, w75, w76, w77, w78, w79, w80, w81, w82, w83, w84, w85, w86, w87, w88, w89, w90, w91, w92, w93, w94, w95, w96, w97,
    w98, w99, w100, w101, w102, w103, w104, w105, w106, w107, w108, w109, w110, w111, w112, w113, w114, w115, w116, w117,
    w118, w119, w120, w121, w122, w123, w124, w125, w126, w127, w128, w129, w130, w131, w132, w133, w134, w135, w136, w137,
    w138, w139, w140, w141, w142, w143, w144, w145, w146, w147, w148, w149, w150, w151, w152, w153, w154, w155, w156, w157,
    w158, w159, w160, w161, w162, w163, w164, w165, w166, w167, w168, w169, w170, w171, w172, w173, w174, w175, w176, w177,
    w178, w179, w180, w181, w182, w183, w184, w185, w186, w187, w188, w189, w190, w191, w192, w193, w194, w195, w196, w197,
    w198, w199, w200, w201, w202, w203, w204, w205, w206, w207, w208, w209, w210, w211, w212, w213, w214, w215, w216, w217,
    w218, w219, w220, w221, w222, w223, w224, w225, w226, w227, w228, w229, w230, w231, w232, w233, w234, w235, w236, w237,
    w238, w239, w240, w241, w242, w243, w244, w245, w246, w247, w248, w249, w250, w251, w252, w253, w254, w255, w256, w257,
    w258, w259, w260, w261, w262, w263, w264, w265, w266, w267, w268, w269, w270, w271, w272, w273, w274, w275, w276, w277,
    w278, w279, w280, w281, w282, w283, w284, w285, w286, w287, w288, w289, w290, w291, w292, w293, w294, w295, w296, w297,
    w298, w299, w300, w301, w302, w303, w304, w305, w306, w307, w308, w309, w310, w311, w312, w313, w314, w315, w316, w317,
    w318, w319, w320, w321, w322, w323, w324, w325, w326, w327, w328, w329, w330, w331, w332, w333, w334, w335, w336, w337,
    w338, w339, w340, w341, w342, w343, w344, w345, w346, w347, w348, w349, w350, w351, w352, w353, w354, w355, w356, w357,
    w358, w359, w360, w361, w362, w363, w364, w365, w366, w367, w368, w369, w370, w371, w372, w373, w374, w375, w376, w377,
    w378, w379, w380, w381, w382, w383,
    content = '', columnsize = 0, detail = column, tokenize = "ascii tokenchars ':-'"
);

CREATE VIRTUAL TABLE corpus_places USING fts5vocab (corpus_words, instance);
CREATE VIRTUAL TABLE corpus_counts USING fts5vocab (corpus_words, row);

CREATE TABLE cache (
    tenant     TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    value      TEXT    NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;

CREATE INDEX cache_by_expiry ON cache (tenant, expires_at);

-- How much of it belongs to a tenant.
CREATE TABLE cache_room (
    tenant TEXT    NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (tenant)
) STRICT, WITHOUT ROWID;
