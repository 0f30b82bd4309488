//! What this instance of sg has stored and installed.

use std::fs;

use super::{Check, devices, path};
use crate::controller::View;
use crate::dirs::{DirOptions, Dirs, Place};
use crate::observe::Full;

/// Makes the kernel hold what is stored, whatever went wrong.
const RESTORE: &str = "sg-ctl restore";

pub(super) fn checks(options: &DirOptions) -> Vec<Check> {
    let view = match View::open(options) {
        Ok(view) => view,
        Err(error) => {
            let next = "do what it says; what is installed stays in force";
            return vec![Check::problem("store", error.to_string(), next)];
        }
    };
    if let Some(mismatch) = &view.mismatch {
        return vec![
            Check::problem("store", mismatch.to_string(), "do what it says"),
            pins(options, false),
        ];
    }
    let interfaces: usize = view
        .policy
        .vpcs
        .values()
        .map(|vpc| vpc.interfaces.len())
        .sum();
    let mut checks = vec![Check::ok(
        "store",
        format!(
            "revision {}; interfaces to protect: {interfaces}",
            view.revision
        ),
    )];
    checks.push(pins(options, interfaces > 0));
    checks.extend(devices::checks(&view.policy));
    checks.extend(path::checks(&view.policy));
    checks.extend(confirmation(&view));
    checks.extend(drift(options));
    checks.extend(full(&view));
    checks
}

/// Interfaces and tables that take no connection any more.
fn full(view: &View) -> Vec<Check> {
    let dataplane = view.dataplane().map_err(|error| error.to_string());
    let full = dataplane
        .and_then(|dataplane| Full::read(dataplane.as_ref()).map_err(|error| error.to_string()));
    match full {
        Err(error) => vec![Check::problem("connections", error, "do what it says")],
        Ok(full) if full.is_empty() => {
            vec![Check::ok(
                "connections",
                "there is room for more at every interface",
            )]
        }
        Ok(full) => full
            .iter()
            .map(|full| match full.drops() {
                true => Check::problem("connections", full.found(), full.remedy()),
                false => Check::warning("connections", full.found(), full.remedy()),
            })
            .collect(),
    }
}

fn pins(options: &DirOptions, is_needed: bool) -> Check {
    let exists = fs::exists(&options.run_dir).unwrap_or(false);
    let found = match exists {
        true => Dirs::create(options).and_then(|dirs| dirs.find_bpffs()),
        false => Ok(None),
    };
    let path = options.run_dir.join("bpf");
    let path = path.display();
    match found {
        Err(error) => Check::problem("bpffs", error.to_string(), "do what it says"),
        Ok(Some(found)) if found.place == Place::Machine => Check::ok(
            "bpffs",
            format!("{path}, where every process of the machine sees it"),
        ),
        Ok(Some(_)) => Check::problem(
            "bpffs",
            format!("{path} is mounted for some processes only: protection ends with them"),
            "run `sg-ctl restore` outside of their mount namespace",
        ),
        Ok(None) if is_needed => Check::problem(
            "bpffs",
            format!("nothing is mounted on {path}, so nothing is protected"),
            RESTORE,
        ),
        Ok(None) => Check::ok("bpffs", "nothing is protected, so nothing is mounted"),
    }
}

fn confirmation(view: &View) -> Option<Check> {
    let waiting = view.unconfirmed.as_ref()?;
    let name = "confirmation";
    Some(match (&waiting.failure, waiting.left_s()) {
        (Some(failure), _) => Check::problem(
            name,
            format!("an unconfirmed change could not be rolled back: {failure}"),
            "sg-ctl rollback",
        ),
        (None, 0) => Check::problem(
            name,
            "an unconfirmed change is overdue and was not rolled back",
            RESTORE,
        ),
        (None, left) => Check::warning(
            name,
            format!("the last change is rolled back in {left} s"),
            "sg-ctl confirm",
        ),
    })
}

fn drift(options: &DirOptions) -> Vec<Check> {
    let name = "drift";
    let verified = match View::verify(options) {
        Ok(verified) => verified,
        Err(error) => return vec![Check::problem(name, error.to_string(), "do what it says")],
    };
    let missing = verified.missing.iter().map(|missing| {
        let next = "it is protected when it is there and `sg-ctl restore` has run";
        Check::warning("interface", missing, next)
    });
    let mut checks: Vec<Check> = missing.collect();
    let unfit = verified.unfit.iter();
    checks.extend(unfit.map(|unfit| Check::problem("interface", unfit, "do what it says")));
    let differences = verified.differences.iter();
    checks.extend(differences.map(|found| Check::problem(name, found.to_string(), RESTORE)));
    if verified.differences.is_empty() {
        checks.push(Check::ok(name, "the kernel holds what is stored"));
    }
    checks
}
