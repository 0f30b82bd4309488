//! The name that was probably meant.

/// Words of other tools for what has another name here, with those names.
const OTHER_WORDS: &[(&str, &[&str])] = &[
    ("cidr", &["from", "to"]),
    ("source", &["from"]),
    ("src", &["from"]),
    ("destination", &["to"]),
    ("dest", &["to"]),
    ("dst", &["to"]),
    ("port", &["ports"]),
    ("proto", &["protocol"]),
    ("inbound", &["ingress"]),
    ("outbound", &["egress"]),
    ("ping", &["icmp"]),
    ("ping6", &["icmpv6"]),
    ("version", &["--version"]),
    ("help", &["--help"]),
];

/// The names that another tool's word may stand for; none where it is no such word.
pub(crate) fn meanings(given: &str) -> &'static [&'static str] {
    let given = given.trim_start_matches('-').to_ascii_lowercase();
    let found = OTHER_WORDS.iter().find(|(word, _)| *word == given);
    found.map_or(&[], |(_, names)| names)
}

/// The known name that another tool's word stands for, or that is closest to a mistyped one, if any
/// is close.
pub(crate) fn closest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let known: Vec<_> = known.into_iter().collect();
    if let Some(same) = known.iter().find(|name| name.eq_ignore_ascii_case(given)) {
        return Some(same);
    }
    let meant = meanings(given).iter();
    if let Some(meant) = meant
        .flat_map(|meant| known.iter().find(|name| *name == meant))
        .next()
    {
        return Some(meant);
    }
    let given = given.to_ascii_lowercase();
    // A third of the letters may be wrong: "grops" is "groups", but "a" is not "b".
    let tolerance = given.len().div_ceil(3).min(3);
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(given.len()) <= tolerance)
        .map(|name| {
            (
                strsim::osa_distance(&given, &name.to_ascii_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= tolerance && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["groups", "group", "interfaces", "b"];
        assert_eq!(closest("grops", known), Some("groups"));
        assert_eq!(closest("Interface", known), Some("interfaces"));
        assert_eq!(closest("a", known), None);
        assert_eq!(closest("egress", known), None);
        assert_eq!(closest("", known), None);
        assert_eq!(closest("cidr", ["protocol", "from"]), Some("from"));
        assert_eq!(closest("cidr", ["protocol", "to"]), Some("to"));
        assert_eq!(closest("ping", ["tcp", "icmp"]), Some("icmp"));
        assert_eq!(closest("ping", ["ping", "tcp"]), Some("ping"));
    }
}
