//! The name that was probably meant.

/// The known name closest to a mistyped one, if any is close.
pub(crate) fn closest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
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
    }
}
