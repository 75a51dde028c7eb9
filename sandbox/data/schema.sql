-- The stand-in CMS's state. Times are RFC 3339 in UTC; dates are calendar dates at CMS; `ready_at` is machine time.
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS token (
    sha256 TEXT PRIMARY KEY, client_id TEXT NOT NULL, entity_id TEXT, scope TEXT NOT NULL, expires_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS assertion (client_id TEXT NOT NULL, jti TEXT NOT NULL, PRIMARY KEY (client_id, jti)) STRICT;
CREATE TABLE IF NOT EXISTS beneficiary (mbi TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS submission (
    id TEXT PRIMARY KEY, call TEXT NOT NULL, entity_id TEXT NOT NULL, received_at TEXT NOT NULL, ready_at REAL NOT NULL,
    facts TEXT NOT NULL, code TEXT, answer TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS submission_working ON submission (ready_at) WHERE answer IS NULL;
CREATE TABLE IF NOT EXISTS alignment (
    id TEXT PRIMARY KEY, mbi TEXT NOT NULL, track TEXT NOT NULL, entity_id TEXT NOT NULL, aligned_on TEXT NOT NULL,
    state TEXT NOT NULL, review_on TEXT, ended_on TEXT, diagnoses TEXT NOT NULL, seeded INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS alignment_one_a_track ON alignment (mbi, track) WHERE ended_on IS NULL;
CREATE TABLE IF NOT EXISTS report (
    submission_id TEXT PRIMARY KEY, alignment_id TEXT NOT NULL, report_type TEXT NOT NULL, received_on TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS report_alignment ON report (alignment_id, received_on);
CREATE TABLE IF NOT EXISTS control (
    submission_id TEXT NOT NULL, mbi TEXT NOT NULL, track TEXT NOT NULL, entity_id TEXT NOT NULL, since TEXT NOT NULL,
    PRIMARY KEY (mbi, track)
) STRICT;
CREATE TABLE IF NOT EXISTS mail (
    event_key TEXT PRIMARY KEY, event TEXT NOT NULL, submission_id TEXT NOT NULL, entity_id TEXT NOT NULL,
    deadline TEXT, action TEXT NOT NULL, made_at TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, sent_at TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS fault (seq INTEGER PRIMARY KEY AUTOINCREMENT, plan TEXT NOT NULL, remaining INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, machine_at TEXT NOT NULL, call TEXT NOT NULL,
    method TEXT NOT NULL, path TEXT NOT NULL, query TEXT NOT NULL, host TEXT NOT NULL, status INTEGER,
    body_sha256 TEXT NOT NULL, submission_id TEXT, accepted INTEGER NOT NULL, "authorization" TEXT, fault TEXT
) STRICT;
