//! What AWS's command line prints becomes a policy that is enforced as it was there.

use std::fs;

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const GROUPS: &str = r#"{"SecurityGroups": [
  {"GroupId": "sg-0123456789abcdef0", "GroupName": "web", "Description": "the site",
   "OwnerId": "111122223333", "VpcId": "vpc-0aa",
   "IpPermissions": [
     {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81,
      "IpRanges": [{"CidrIp": "10.0.0.0/24", "Description": "inside"}],
      "PrefixListIds": [{"PrefixListId": "pl-0123456789abcdef0"}]}],
   "IpPermissionsEgress": [
     {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
      "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]}]}"#;
const ENTRIES: &str = r#"{"Entries": [{"Cidr": "198.51.100.7/32"}]}"#;

#[test]
fn an_imported_policy_is_applied_and_exported_as_it_is() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("groups.json"), GROUPS)?;
    fs::write(path("pl-0123456789abcdef0.json"), ENTRIES)?;

    let without = sg.run(&["import", "aws", &path("groups.json")])?;
    ensure!(without.code == Some(1), "{without}");
    ensure!(
        without.stderr.contains("get-managed-prefix-list-entries"),
        "{without}"
    );

    let [groups, entries, policy] =
        ["groups.json", "pl-0123456789abcdef0.json", "policy.yaml"].map(path);
    let imported = sg.run(&["import", "aws", &groups, &entries, "--as", "default"])?;
    let imported = imported.succeeded()?.stdout;
    let written = sg.run(&[
        "import", "aws", &groups, &entries, "--as", "default", "-o", &policy,
    ])?;
    written.succeeded()?;
    ensure!(fs::read_to_string(&policy)? == imported);
    sg.run(&["apply", &policy])?.succeeded()?;
    let exported = sg.run(&["export"])?.succeeded()?.stdout;
    let exported = exported.replace("interfaces: {}\n", "");
    ensure!(imported.ends_with(&exported), "{imported}\n{exported}");

    sg.run(&["attach", "eth0", "--group", "web"])?.succeeded()?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":80")?,
        TcpEcho::listen(&pair.host, ":82")?,
    );
    for (from, port, wanted) in [
        ("10.0.0.1", 80, Connected),
        ("198.51.100.7", 80, Connected),
        ("203.0.113.5", 80, TimedOut),
        ("10.0.0.1", 82, TimedOut),
    ] {
        let got = tcp_connects(pair.world.at(from)?, &format!("10.0.0.10:{port}"))?;
        ensure!(got == wanted, "{from} to {port}: {got:?}");
    }
    Ok(())
}
