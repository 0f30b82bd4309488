//! boto3 and the cloud's command line do with groups, rules, tags, VPCs and prefix lists what they do
//! at the cloud, and see what `sg-ctl` did, as it sees what they did.

use anyhow::{Context as _, Result, ensure};
use tests::api::{Api, Clients, Key};

#[test]
fn boto3_makes_changes_and_deletes() -> Result<()> {
    let Some(clients) = Clients::find("boto3 is served") else {
        return Ok(());
    };
    let api = Api::serve()?;
    for script in ["groups.py", "prefix_lists.py", "vpcs.py"] {
        api.python(&clients, script, &[])?;
    }
    Ok(())
}

#[test]
fn a_read_only_key_looks_and_changes_nothing() -> Result<()> {
    let Some(clients) = Clients::find("read-only keys") else {
        return Ok(());
    };
    let api = Api::serve()?;
    let looks = Key::create(&api.sg, &["looks", "--read-only"])?;
    api.python(&clients, "read_only.py", &[&looks.id, &looks.secret])?;
    Ok(())
}

#[test]
fn the_command_line_is_served_as_it_asks() -> Result<()> {
    let Some(clients) = Clients::find("the command line is served") else {
        return Ok(());
    };
    let api = Api::serve()?;
    let made = api.aws(
        &clients,
        &[
            "create-security-group",
            "--group-name",
            "web",
            "--description",
            "the web",
        ],
    )?;
    let id = made["GroupId"].as_str().context("no GroupId")?;
    api.aws(
        &clients,
        &[
            "authorize-security-group-ingress",
            "--group-id",
            id,
            "--protocol",
            "tcp",
            "--port",
            "80-90",
            "--cidr",
            "10.0.0.0/8",
        ],
    )?;
    api.aws(
        &clients,
        &[
            "authorize-security-group-ingress",
            "--group-id",
            id,
            "--protocol",
            "all",
            "--source-group",
            id,
        ],
    )?;
    let told = api.sg.run(&["group", "show", "web"])?.succeeded()?;
    ensure!(told.stdout.contains("80-90"), "{told}");
    let page = api.aws(
        &clients,
        &["describe-security-group-rules", "--page-size", "5"],
    )?;
    let rules = page["SecurityGroupRules"].as_array().context("no rules")?;
    ensure!(rules.len() == 7, "{page}");
    let again = api.aws(
        &clients,
        &[
            "authorize-security-group-ingress",
            "--group-id",
            id,
            "--protocol",
            "tcp",
            "--port",
            "80-90",
            "--cidr",
            "10.0.0.0/8",
        ],
    );
    let refused = format!("{:#}", again.err().context("twice")?);
    ensure!(refused.contains("InvalidPermission.Duplicate"), "{refused}");
    Ok(())
}

#[test]
fn what_sg_ctl_does_is_seen_and_ids_are_of_one_life() -> Result<()> {
    let Some(clients) = Clients::find("what sg-ctl does is seen by clients") else {
        return Ok(());
    };
    let api = Api::serve()?;
    let id = || -> Result<Option<String>> {
        let told = api.aws(
            &clients,
            &[
                "describe-security-groups",
                "--filters",
                "Name=group-name,Values=ops",
            ],
        )?;
        Ok(told["SecurityGroups"][0]["GroupId"]
            .as_str()
            .map(str::to_owned))
    };
    let create = ["group", "create", "ops", "--description", "by hand"];
    api.sg.run(&create)?.succeeded()?;
    let first = id()?.context("it is not seen")?;
    ensure!(id()?.as_ref() == Some(&first));
    let tag = [
        "create-tags",
        "--resources",
        &first,
        "--tags",
        "Key=a,Value=b",
    ];
    api.aws(&clients, &tag)?;
    api.sg.run(&["group", "delete", "ops"])?.succeeded()?;
    ensure!(id()?.is_none());
    api.sg.run(&create)?.succeeded()?;
    let second = id()?.context("it is not seen again")?;
    ensure!(second != first);
    let tags = api.aws(&clients, &["describe-tags"])?;
    ensure!(tags["Tags"].as_array().is_some_and(Vec::is_empty), "{tags}");
    Ok(())
}
