# Reads two looks at the Raft groups of a NATS server, "later" between them, and ends with 0 if the server is current: if
# its store has what the groups of its streams and consumers have elsewhere. No apostrophes here: a shell quotes this file.
#
# A leader is heard at least once a second, so that between looks that are two seconds apart each group hears of what it lacks.
# - A group without a leader does not know what it lacks.
# - One that is catching up does not have the log yet.
# - What it knew to be committed at the first look must be applied, which means stored, at the second.
# - What came since may be on its way, up to LAG_MAX entries: bids go on meanwhile.
BEGIN { LAG_MAX = 100 }
/ later / { later = 1 }
/: [{]/ { group = $1 }
/"catching_up": true/ { lacks = 1 }
/"committed":/ { committed = $2 + 0; without_leader++ }
/"leader":/ { without_leader-- }
/"applied":/ {
    if (later && (!(group in known) || $2 + 0 < known[group] || committed - $2 > LAG_MAX)) lacks = 1
    known[group] = committed
}
END { exit (lacks || without_leader > 0) }
