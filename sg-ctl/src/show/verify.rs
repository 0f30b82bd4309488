//! Whether the kernel holds what is stored.

use super::style::Style;
use super::words::count;
use crate::controller::Verified;

/// What differs, a line each, and what to do about it.
pub fn verified(verified: &Verified, style: Style) -> String {
    let mut text = String::new();
    for missing in verified.missing.iter().chain(&verified.unfit) {
        text.push_str(&style.changed(&format!("! {missing}")));
        text.push('\n');
    }
    for difference in &verified.differences {
        text.push_str(&style.bad(&format!("- {difference}")));
        text.push('\n');
    }
    let revision = verified.revision;
    text.push_str(&match verified.differences.len() {
        0 => format!("the kernel holds what is stored (revision {revision})\n"),
        number => format!(
            "{} from what is stored (revision {revision}); `sg-ctl restore` makes the kernel match\n",
            count(number, "difference")
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Difference;

    #[test]
    fn each_difference_has_a_line_and_the_end_says_what_to_do() {
        let mut found = Verified {
            differences: vec![Difference::NotProtected("eth0".parse().unwrap())],
            missing: vec!["there is no eth1".to_owned()],
            unfit: Vec::new(),
            revision: 3,
        };
        assert_eq!(
            verified(&found, Style::PLAIN),
            "! there is no eth1\n- interface eth0 is not protected\n1 difference from what is stored \
             (revision 3); `sg-ctl restore` makes the kernel match\n"
        );
        found.differences.clear();
        found.missing.clear();
        assert_eq!(
            verified(&found, Style::PLAIN),
            "the kernel holds what is stored (revision 3)\n"
        );
    }
}
