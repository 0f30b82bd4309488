//! A command that has done what it was to do succeeds, whether or not its report can be written.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;

const POLICY: &str = "{groups: {web: {}}, interfaces: {eth0: {groups: [web]}}}";

#[test]
fn what_is_in_force_is_not_called_a_failure() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let file = sg.write_policy(POLICY)?;
    let apply = format!("apply {file}");
    for (command, query, done) in [
        (apply.as_str(), "status", "protected"),
        (
            "rule add web --ingress --service https --from 10.0.0.0/8",
            "rule list web",
            "tcp 443 from 10.0.0.0/8",
        ),
        ("group create app", "group list", "app"),
        (
            "group members app --add 192.0.2.7",
            "group members app",
            "192.0.2.7",
        ),
        (
            "prefix-list set office 10.0.0.0/8",
            "prefix-list list",
            "office",
        ),
        ("limits set rules=2000000", "limits", "2,000,000"),
        ("restore", "status", "protected"),
        (
            "rule remove web --ingress --service https --from 10.0.0.0/8 --confirm 60s",
            "status",
            "confirm",
        ),
        ("rollback", "rule list web", "tcp 443 from 10.0.0.0/8"),
        ("flows terminate --all", "status", "protected"),
    ] {
        let ran = sg.shell(&pair.host, &format!("sg-ctl {command} >/dev/full"))?;
        ensure!(ran.code == Some(0), "{command}: {ran}");
        ensure!(
            ran.stderr.contains("what the command was to do is done"),
            "{command}: {ran}"
        );
        let words: Vec<_> = query.split(' ').collect();
        let told = sg.run(&words)?;
        ensure!(told.stdout.contains(done), "{command}: {told}");
    }
    // An answer that cannot be written is none.
    let asked = sg.shell(&pair.host, "sg-ctl status >/dev/full")?;
    ensure!(asked.code == Some(2), "{asked}");
    ensure!(asked.stderr.contains("cannot write the output"), "{asked}");
    Ok(())
}
