-- What refers to another row by name is checked when a commit ends, because a batch may delete a
-- group or a prefix list and make it again. NOCASE compares as the model's names do.
CREATE TABLE revision (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
    number INTEGER NOT NULL
) STRICT;

CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE vpc (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    on_rule_removal INTEGER NOT NULL,
    object_id TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE link_local_service (
    vpc INTEGER NOT NULL REFERENCES vpc ON DELETE CASCADE,
    address BLOB NOT NULL,
    PRIMARY KEY (vpc, address)
) STRICT, WITHOUT ROWID;

CREATE TABLE prefix_list (
    id INTEGER PRIMARY KEY,
    vpc INTEGER NOT NULL REFERENCES vpc ON DELETE CASCADE,
    name TEXT NOT NULL COLLATE NOCASE,
    -- Lists that the API has in several VPCs share one.
    object_id TEXT NOT NULL DEFAULT '',
    UNIQUE (vpc, name)
) STRICT;

CREATE TABLE prefix (
    prefix_list INTEGER NOT NULL REFERENCES prefix_list ON DELETE CASCADE,
    address BLOB NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (prefix_list, address, length)
) STRICT, WITHOUT ROWID;

-- "group" is a word of SQL.
CREATE TABLE security_group (
    id INTEGER PRIMARY KEY,
    vpc INTEGER NOT NULL REFERENCES vpc ON DELETE CASCADE,
    name TEXT NOT NULL COLLATE NOCASE,
    group_id TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    UNIQUE (vpc, name)
) STRICT;

CREATE TABLE member (
    security_group INTEGER NOT NULL REFERENCES security_group ON DELETE CASCADE,
    address BLOB NOT NULL,
    PRIMARY KEY (security_group, address)
) STRICT, WITHOUT ROWID;

-- protocol: its number; NULL for all. low and high: the ports of TCP and UDP, or the type and code
-- of ICMP, where NULL is any. The peer is one of a prefix, a prefix list and a group.
CREATE TABLE rule (
    security_group INTEGER NOT NULL REFERENCES security_group ON DELETE CASCADE,
    rule_id TEXT NOT NULL,
    vpc INTEGER NOT NULL,
    direction INTEGER NOT NULL,
    protocol INTEGER,
    low INTEGER,
    high INTEGER,
    peer_address BLOB,
    peer_length INTEGER,
    peer_prefix_list TEXT COLLATE NOCASE,
    peer_group TEXT COLLATE NOCASE,
    description TEXT NOT NULL,
    PRIMARY KEY (security_group, rule_id),
    FOREIGN KEY (vpc, peer_prefix_list) REFERENCES prefix_list (vpc, name)
        DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (vpc, peer_group) REFERENCES security_group (vpc, name)
        DEFERRABLE INITIALLY DEFERRED,
    CHECK ((peer_address IS NULL) = (peer_length IS NULL)),
    CHECK ((peer_address IS NOT NULL) + (peer_prefix_list IS NOT NULL) + (peer_group IS NOT NULL)
        = 1)
) STRICT, WITHOUT ROWID;

CREATE INDEX rule_by_prefix_list ON rule (vpc, peer_prefix_list)
    WHERE peer_prefix_list IS NOT NULL;

CREATE INDEX rule_by_group ON rule (vpc, peer_group) WHERE peer_group IS NOT NULL;

CREATE TABLE interface (
    id INTEGER PRIMARY KEY,
    vpc INTEGER NOT NULL REFERENCES vpc ON DELETE CASCADE,
    name TEXT NOT NULL,
    side INTEGER NOT NULL,
    hook INTEGER NOT NULL,
    netns TEXT,
    replace_xdp INTEGER NOT NULL,
    tcp_pickup INTEGER NOT NULL,
    strict_fragments INTEGER NOT NULL,
    audit INTEGER NOT NULL,
    egress_drops INTEGER NOT NULL DEFAULT 0,
    any_mac INTEGER NOT NULL DEFAULT 0,
    tcp_established_s INTEGER NOT NULL,
    udp_s INTEGER NOT NULL,
    udp_stream_s INTEGER NOT NULL,
    max_flows INTEGER,
    match_name TEXT,
    match_mac TEXT,
    match_alias TEXT,
    object_id TEXT NOT NULL DEFAULT '',
    UNIQUE (vpc, name)
) STRICT;

CREATE TABLE membership (
    interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
    vpc INTEGER NOT NULL,
    security_group TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (interface, security_group),
    FOREIGN KEY (vpc, security_group) REFERENCES security_group (vpc, name)
        DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE INDEX membership_by_group ON membership (vpc, security_group);

CREATE TABLE guest_address (
    interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
    address BLOB NOT NULL,
    PRIMARY KEY (interface, address)
) STRICT, WITHOUT ROWID;

CREATE TABLE ethertype (
    interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
    number INTEGER NOT NULL,
    PRIMARY KEY (interface, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE guest_mac (
    interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
    mac BLOB NOT NULL,
    PRIMARY KEY (interface, mac)
) STRICT, WITHOUT ROWID;

CREATE TABLE guest_vlan (
    interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
    number INTEGER NOT NULL,
    PRIMARY KEY (interface, number)
) STRICT, WITHOUT ROWID;

-- What is kept about an object besides what it means: tags and the like, by the object's id.
CREATE TABLE note (
    object TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (object, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER rule_has_no_notes AFTER DELETE ON rule BEGIN
    DELETE FROM note WHERE object = OLD.rule_id;
END;

CREATE TRIGGER group_has_no_notes AFTER DELETE ON security_group BEGIN
    DELETE FROM note WHERE object = OLD.group_id;
END;

CREATE TRIGGER vpc_has_no_notes AFTER DELETE ON vpc BEGIN
    DELETE FROM note WHERE object = OLD.object_id;
END;

CREATE TRIGGER interface_has_no_notes AFTER DELETE ON interface BEGIN
    DELETE FROM note WHERE object = OLD.object_id;
END;

CREATE TRIGGER prefix_list_has_no_notes AFTER DELETE ON prefix_list BEGIN
    DELETE FROM note WHERE object = OLD.object_id
        AND NOT EXISTS (SELECT 1 FROM prefix_list WHERE object_id = OLD.object_id);
END;
