//! How the daemon is.

use super::style::Style;
use super::words::number;
use crate::daemon::Report;

/// The daemon's state.
pub fn daemon(report: &Report, style: Style) -> String {
    let followed = &report.followed;
    let mut text = format!(
        "running: pid {}, version {}\nrevision {}; {} network namespaces watched; {} looks, {} changes; {} commands made\n",
        report.pid,
        report.daemon_version,
        followed.revision,
        number(followed.namespaces as u64),
        number(followed.looks),
        number(followed.changes),
        number(report.commands),
    );
    if followed.changes > 0 {
        let ms = followed.last_change_us as f64 / 1_000.0;
        text.push_str(&format!(
            "the last change was in force {ms:.1} ms after its news\n"
        ));
    }
    for warning in &followed.warnings {
        text.push_str(&style.changed(&format!("warning: {warning}")));
        text.push('\n');
    }
    if let Some(failure) = &followed.failure {
        text.push_str(&style.bad(&format!("failing: {failure}")));
        text.push('\n');
    }
    text
}
