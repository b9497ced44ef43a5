-- The annotation page's own tables. They stand in the same file as `preferences`.

CREATE TABLE IF NOT EXISTS page_people (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('annotator', 'reviewer', 'admin')),
    password TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1,
    created REAL NOT NULL
);

-- Secrets are stored as SHA-256: whoever reads the file can use none of them.
CREATE TABLE IF NOT EXISTS page_invites (
    secret TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    made_by TEXT NOT NULL,
    expires REAL NOT NULL,
    used_by TEXT
);
CREATE TABLE IF NOT EXISTS page_sessions (
    secret TEXT PRIMARY KEY,
    person TEXT NOT NULL REFERENCES page_people (name),
    csrf TEXT NOT NULL,
    expires REAL NOT NULL,
    ends REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS page_attempts (key TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS page_attempts_of ON page_attempts (key, at);

CREATE TABLE IF NOT EXISTS page_projects (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    guidelines TEXT NOT NULL DEFAULT '',
    scale TEXT NOT NULL DEFAULT 'seven' CHECK (scale IN ('seven', 'three')),
    criteria TEXT NOT NULL DEFAULT '[]',
    quota INTEGER NOT NULL CHECK (quota > 0),
    gold_every INTEGER NOT NULL DEFAULT 10,
    lease_seconds REAL NOT NULL,
    open INTEGER NOT NULL DEFAULT 1,
    created REAL NOT NULL
);

CREATE TABLE IF NOT EXISTS page_tasks (
    id INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES page_projects (id),
    comparison TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('compare', 'write')),
    gold REAL,
    taken INTEGER NOT NULL DEFAULT 0  -- slots in use, of what page_events tells
);
CREATE INDEX IF NOT EXISTS page_tasks_open ON page_tasks (project, gold, taken DESC, id);

-- Who was shown what, and how. A lease is a hint: the slot of an event is the truth.
CREATE TABLE IF NOT EXISTS page_claims (
    task INTEGER NOT NULL REFERENCES page_tasks (id),
    annotator TEXT NOT NULL,
    a_left INTEGER NOT NULL,
    shown REAL NOT NULL,
    leased_until REAL NOT NULL,
    version INTEGER NOT NULL DEFAULT 0,  -- events of this annotator on this task
    PRIMARY KEY (task, annotator)
);
CREATE INDEX IF NOT EXISTS page_claims_of ON page_claims (annotator, version);

CREATE TABLE IF NOT EXISTS page_events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES page_tasks (id),
    annotator TEXT NOT NULL,
    version INTEGER NOT NULL,
    action TEXT NOT NULL
        CHECK (action IN ('label', 'answer', 'skip', 'flag', 'settle')),
    slot INTEGER,   -- the first label takes one; later versions and gold items take none
    round INTEGER,  -- of the preference; NULL where the event is none
    p_a REAL,
    strength REAL,
    criteria TEXT NOT NULL DEFAULT '{}',
    rationale TEXT NOT NULL DEFAULT '',
    answer TEXT NOT NULL DEFAULT '',
    choice INTEGER,  -- as it was pressed: 1 is left, the highest number right
    a_left INTEGER NOT NULL,
    seconds REAL,
    instructions TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    UNIQUE (task, annotator, version),
    UNIQUE (task, slot)
);
CREATE INDEX IF NOT EXISTS page_events_of ON page_events (annotator, sequence);

CREATE TABLE IF NOT EXISTS page_audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    person TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL
);

CREATE TRIGGER IF NOT EXISTS page_events_within_quota BEFORE INSERT ON page_events
WHEN NEW.slot IS NOT NULL AND NEW.slot >= (
    SELECT quota FROM page_projects JOIN page_tasks ON page_projects.id = project
    WHERE page_tasks.id = NEW.task
) BEGIN SELECT RAISE(ABORT, 'over quota'); END;

CREATE TRIGGER IF NOT EXISTS page_events_no_update BEFORE UPDATE ON page_events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER IF NOT EXISTS page_events_no_delete BEFORE DELETE ON page_events
BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
CREATE TRIGGER IF NOT EXISTS page_audit_no_update BEFORE UPDATE ON page_audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is never changed'); END;
CREATE TRIGGER IF NOT EXISTS page_audit_no_delete BEFORE DELETE ON page_audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is never changed'); END;
