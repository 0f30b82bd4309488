//! What `--help` and the manual say besides the options: examples, files, environment, exit status.
//!
//! The options come from the definition of the command line. A test reads each example with it, so
//! that no example outlives the option it shows.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// What the help of one command adds to its options.
pub(super) struct Page {
    /// The words after `sg-ctl`.
    pub(super) command: &'static str,
    /// Commands with what each is for.
    pub(super) examples: &'static [(&'static str, &'static str)],
    /// What exit code 1 means, where the command answers a question.
    pub(super) exit_1: Option<&'static str>,
    /// Other pages of the manual.
    pub(super) see_also: &'static [&'static str],
}

const fn page(
    command: &'static str,
    examples: &'static [(&'static str, &'static str)],
    exit_1: Option<&'static str>,
    see_also: &'static [&'static str],
) -> Page {
    Page {
        command,
        examples,
        exit_1,
        see_also,
    }
}

/// Every command, in the order of the groups below.
pub(super) static PAGES: &[Page] = &[
    page(
        "",
        &[
            (
                "sg-ctl apply policy.yaml",
                "make this machine match a policy file",
            ),
            ("sg-ctl status", "which interfaces are protected"),
        ],
        Some("a command that asks a question found something: see its page"),
        &["sg-policy(5)", "sg-ctl-apply(1)", "sg-ctl-explain(1)"],
    ),
    page(
        "apply",
        &[
            (
                "sg-ctl apply policy.yaml --dry-run",
                "what would change, and which open connections it concerns",
            ),
            (
                "sg-ctl apply policy.yaml --confirm 60s",
                "take the change back unless `sg-ctl confirm` follows",
            ),
        ],
        Some("with --dry-run, something would change"),
        &[
            "sg-policy(5)",
            "sg-ctl-diff(1)",
            "sg-ctl-check(1)",
            "sg-ctl-confirm(1)",
        ],
    ),
    page(
        "diff",
        &[
            ("sg-ctl diff policy.yaml", "what `apply` would change"),
            ("sg-ctl diff policy.yaml --json", "the same for a program"),
        ],
        Some("something would change"),
        &["sg-policy(5)", "sg-ctl-apply(1)"],
    ),
    page(
        "check",
        &[
            (
                "sg-ctl check policy.yaml",
                "everything that is wrong with a file",
            ),
            (
                "sg-ctl check --level warning",
                "look at the policy in force; exit code 1 from warnings on",
            ),
        ],
        Some("something was found at --level or above"),
        &["sg-policy(5)", "sg-ctl-apply(1)"],
    ),
    page(
        "export",
        &[
            (
                "sg-ctl export >policy.yaml",
                "the policy of the VPC `default` as a file",
            ),
            ("sg-ctl export --vpc prod", "that of another VPC"),
        ],
        None,
        &["sg-policy(5)", "sg-ctl-apply(1)"],
    ),
    page(
        "import",
        &[
            (
                "sg-ctl import aws groups.json",
                "a policy file from the groups of a VPC at AWS",
            ),
            (
                "sg-ctl import aws groups.json --as prod --output policy.yaml",
                "with a name of its own",
            ),
        ],
        Some("something that is allowed at AWS is not allowed by the file"),
        &["sg-policy(5)", "sg-ctl-import-aws(1)"],
    ),
    page(
        "import aws",
        &[
            (
                "sg-ctl import aws groups.json",
                "from what `aws ec2 describe-security-groups` printed",
            ),
            (
                "sg-ctl import aws groups.json lists.json entries.json --vpc vpc-0a1b2c3d",
                "with prefix lists",
            ),
        ],
        Some("something that is allowed at AWS is not allowed by the file"),
        &["sg-policy(5)", "sg-ctl-apply(1)"],
    ),
    page(
        "group",
        &[
            ("sg-ctl group list", "all groups"),
            (
                "sg-ctl group show web",
                "a group with its rules and members",
            ),
        ],
        None,
        &["sg-ctl-rule(1)", "sg-policy(5)"],
    ),
    page(
        "group create",
        &[
            (
                "sg-ctl group create web --description 'the site'",
                "a group that lets nothing in and everything out",
            ),
            ("sg-ctl group create app --vpc prod", "in another VPC"),
        ],
        None,
        &["sg-ctl-rule-add(1)", "sg-ctl-group-delete(1)"],
    ),
    page(
        "group delete",
        &[
            (
                "sg-ctl group delete web",
                "delete a group that no interface and no rule uses",
            ),
            ("sg-ctl group delete app --vpc prod", "in another VPC"),
        ],
        None,
        &["sg-ctl-group-dependents(1)"],
    ),
    page(
        "group show",
        &[
            ("sg-ctl group show web", "its rules, members and interfaces"),
            ("sg-ctl group show web --json", "the same for a program"),
        ],
        None,
        &["sg-ctl-group-list(1)", "sg-ctl-rule-list(1)"],
    ),
    page(
        "group list",
        &[
            ("sg-ctl group list", "the groups of every VPC"),
            ("sg-ctl group list --vpc prod", "those of one VPC"),
        ],
        None,
        &["sg-ctl-group-show(1)"],
    ),
    page(
        "group dependents",
        &[
            (
                "sg-ctl group dependents web",
                "the interfaces and rules that use a group",
            ),
            (
                "sg-ctl group dependents web --json",
                "the same for a program",
            ),
        ],
        None,
        &["sg-ctl-group-delete(1)"],
    ),
    page(
        "group members",
        &[
            (
                "sg-ctl group members app",
                "its addresses, and where each comes from",
            ),
            (
                "sg-ctl group members app --add 10.0.0.13",
                "add another machine",
            ),
        ],
        None,
        &["sg-ctl-group-show(1)", "sg-ctl-attach(1)"],
    ),
    page(
        "rule",
        &[
            (
                "sg-ctl rule list web",
                "the rules of a group, with their ids",
            ),
            (
                "sg-ctl rule add web --ingress --service https --from 0.0.0.0/0",
                "let everyone reach HTTPS",
            ),
        ],
        None,
        &["sg-ctl-rule-add(1)", "sg-ctl-group(1)"],
    ),
    page(
        "rule add",
        &[
            (
                "sg-ctl rule add web --ingress --protocol tcp --ports 443,8080 --from 0.0.0.0/0 --from ::/0",
                "open two ports to everyone",
            ),
            (
                "sg-ctl rule add database --ingress --service postgres --from sg:web",
                "open a port to the members of a group",
            ),
        ],
        None,
        &["sg-ctl-rule-remove(1)", "sg-ctl-apply(1)", "sg-policy(5)"],
    ),
    page(
        "rule remove",
        &[
            (
                "sg-ctl rule remove web sgr-0123456789abcdef0",
                "remove a rule by its id",
            ),
            (
                "sg-ctl rule remove web --ingress --service ssh --from 0.0.0.0/0 --terminate",
                "by what it allows, and close its connections",
            ),
        ],
        None,
        &["sg-ctl-rule-list(1)", "sg-ctl-flows-terminate(1)"],
    ),
    page(
        "rule list",
        &[
            ("sg-ctl rule list", "the rules of all groups"),
            (
                "sg-ctl rule list web --json",
                "those of one group, for a program",
            ),
        ],
        None,
        &["sg-ctl-rule-add(1)", "sg-ctl-stats(1)"],
    ),
    page(
        "prefix-list",
        &[
            ("sg-ctl prefix-list list", "all prefix lists"),
            (
                "sg-ctl prefix-list add office 203.0.113.0/24",
                "add a prefix to one",
            ),
        ],
        None,
        &["sg-policy(5)", "sg-ctl-rule-add(1)"],
    ),
    page(
        "prefix-list set",
        &[
            (
                "sg-ctl prefix-list set office 203.0.113.0/24 2001:db8:aa::/48",
                "make a list, or replace what is in it",
            ),
            ("sg-ctl prefix-list set office", "empty it"),
        ],
        None,
        &["sg-ctl-prefix-list-add(1)"],
    ),
    page(
        "prefix-list add",
        &[
            (
                "sg-ctl prefix-list add office 198.51.100.0/24",
                "one more prefix",
            ),
            (
                "sg-ctl prefix-list add office 198.51.100.0/24 --confirm 60s",
                "for a minute, unless confirmed",
            ),
        ],
        None,
        &["sg-ctl-prefix-list-remove(1)"],
    ),
    page(
        "prefix-list remove",
        &[
            (
                "sg-ctl prefix-list remove office 198.51.100.0/24",
                "one prefix less",
            ),
            (
                "sg-ctl prefix-list remove office 198.51.100.0/24 --confirm 60s",
                "for a minute, unless confirmed",
            ),
        ],
        None,
        &["sg-ctl-prefix-list-add(1)"],
    ),
    page(
        "prefix-list delete",
        &[
            (
                "sg-ctl prefix-list delete office",
                "delete a list that no rule names",
            ),
            (
                "sg-ctl prefix-list delete office --vpc prod",
                "in another VPC",
            ),
        ],
        None,
        &["sg-ctl-prefix-list-list(1)"],
    ),
    page(
        "prefix-list list",
        &[
            ("sg-ctl prefix-list list", "the lists of every VPC"),
            ("sg-ctl prefix-list list --json", "the same for a program"),
        ],
        None,
        &["sg-ctl-prefix-list-show(1)"],
    ),
    page(
        "prefix-list show",
        &[
            ("sg-ctl prefix-list show office", "the prefixes of a list"),
            (
                "sg-ctl prefix-list show office --json",
                "the same for a program",
            ),
        ],
        None,
        &["sg-ctl-prefix-list-list(1)"],
    ),
    page(
        "vpc",
        &[
            ("sg-ctl vpc list", "all VPCs, with their interfaces"),
            ("sg-ctl vpc delete lab", "one that has no interfaces"),
        ],
        None,
        &["sg-ctl-group(1)", "sg-policy(5)"],
    ),
    page(
        "vpc list",
        &[
            ("sg-ctl vpc list", "all VPCs, with their interfaces"),
            ("sg-ctl vpc list --json", "the same for a program"),
        ],
        None,
        &["sg-ctl-vpc-delete(1)", "sg-ctl-export(1)"],
    ),
    page(
        "vpc delete",
        &[
            (
                "sg-ctl vpc delete lab",
                "delete a VPC that has no interfaces, with its groups",
            ),
            (
                "sg-ctl vpc delete lab --confirm 60s",
                "for a minute, unless confirmed",
            ),
        ],
        None,
        &["sg-ctl-vpc-list(1)", "sg-ctl-detach(1)"],
    ),
    page(
        "attach",
        &[
            (
                "sg-ctl attach eth0 eth1 --group web,ssh",
                "protect this machine on two interfaces",
            ),
            (
                "sg-ctl attach eth0 --add-group db --max-flows 20000",
                "change a group and the quota, and keep the rest",
            ),
            (
                "sg-ctl attach vnet0 --group web --side guest --address 10.0.3.7",
                "protect the guest behind a tap",
            ),
        ],
        None,
        &["sg-ctl-detach(1)", "sg-ctl-status(1)", "sg-policy(5)"],
    ),
    page(
        "detach",
        &[
            ("sg-ctl detach eth0", "open an interface"),
            (
                "sg-ctl detach eth0 --confirm 60s",
                "for a minute, unless confirmed",
            ),
        ],
        None,
        &["sg-ctl-attach(1)"],
    ),
    page(
        "restore",
        &[
            (
                "sg-ctl restore",
                "make the kernel match what is stored, as after a reboot",
            ),
            (
                "sg-ctl restore --device vnet0",
                "only if this device is to be protected and is not",
            ),
        ],
        None,
        &["sg-ctl-verify(1)", "sg-ctl-doctor(1)"],
    ),
    page(
        "daemon",
        &[
            (
                "sg-ctl daemon",
                "follow the machine; `systemctl enable --now sg` does it as a service",
            ),
            (
                "sg-ctl daemon --config daemon.toml",
                "with another configuration file",
            ),
        ],
        None,
        &["sg-ctl-daemon-status(1)", "sg-ctl-restore(1)"],
    ),
    page(
        "daemon status",
        &[
            (
                "sg-ctl daemon status",
                "whether the daemon runs, and what it has done",
            ),
            ("sg-ctl daemon status --json", "the same for a program"),
        ],
        Some("the daemon could not make the stored policy hold"),
        &["sg-ctl-daemon(1)", "sg-ctl-status(1)"],
    ),
    page(
        "api",
        &[
            (
                "sg-ctl api key create terraform",
                "an access key for a client of the EC2 API",
            ),
            ("sg-ctl api key list", "the keys there are"),
        ],
        None,
        &["sg-ctl-api-key(1)", "sg-ctl-daemon(1)"],
    ),
    page(
        "api key",
        &[
            (
                "sg-ctl api key list",
                "who may use the EC2 API that the daemon serves",
            ),
            ("sg-ctl api key delete terraform", "lock one of them out"),
        ],
        None,
        &[
            "sg-ctl-api-key-create(1)",
            "sg-ctl-api-key-list(1)",
            "sg-ctl-api-key-delete(1)",
        ],
    ),
    page(
        "api key create",
        &[
            (
                "sg-ctl api key create terraform",
                "a key that may change everything",
            ),
            (
                "sg-ctl api key create dashboard --read-only",
                "one that may only look",
            ),
        ],
        None,
        &["sg-ctl-api-key-list(1)", "sg-ctl-api-key-delete(1)"],
    ),
    page(
        "api key list",
        &[
            ("sg-ctl api key list", "the keys, without their secrets"),
            ("sg-ctl api key list --json", "the same for a program"),
        ],
        None,
        &["sg-ctl-api-key-create(1)", "sg-ctl-api-key-delete(1)"],
    ),
    page(
        "api key delete",
        &[
            (
                "sg-ctl api key delete terraform",
                "refuse whoever signs with it",
            ),
            ("sg-ctl api key delete SGKAVM7D4MCGC2J52SO7", "by its id"),
        ],
        None,
        &["sg-ctl-api-key-create(1)", "sg-ctl-api-key-list(1)"],
    ),
    page(
        "confirm",
        &[
            ("sg-ctl confirm", "keep the change that waits"),
            (
                "sg-ctl apply policy.yaml --confirm 60s",
                "make a change that waits",
            ),
        ],
        None,
        &["sg-ctl-rollback(1)", "sg-ctl-apply(1)"],
    ),
    page(
        "rollback",
        &[
            ("sg-ctl rollback", "take back the change that waits"),
            ("sg-ctl status", "whether a change waits, and how long"),
        ],
        None,
        &["sg-ctl-confirm(1)"],
    ),
    page(
        "status",
        &[
            (
                "sg-ctl status",
                "the interfaces, their groups and whether they are protected",
            ),
            ("sg-ctl status --json", "the same for a program"),
        ],
        None,
        &["sg-ctl-verify(1)", "sg-ctl-stats(1)"],
    ),
    page(
        "stats",
        &[
            (
                "sg-ctl stats eth0",
                "packets by verdict and reason, and by rule",
            ),
            ("sg-ctl stats --watch", "how fast the counters grow"),
        ],
        None,
        &["sg-ctl-top(1)", "sg-ctl-events(1)"],
    ),
    page(
        "top",
        &[
            ("sg-ctl top", "everything at once, full-screen"),
            ("sg-ctl stats --watch", "the same numbers as lines"),
        ],
        None,
        &["sg-ctl-stats(1)"],
    ),
    page(
        "events",
        &[
            (
                "sg-ctl events --follow",
                "each dropped packet as it is dropped",
            ),
            (
                "sg-ctl events --follow --flow-log /var/log/sg-flows.log",
                "a flow log for other tools",
            ),
        ],
        None,
        &["sg-ctl-explain(1)", "sg-ctl-stats(1)"],
    ),
    page(
        "flows",
        &[
            ("sg-ctl flows list", "the connections that are tracked"),
            ("sg-ctl flows show --port 22", "some of them in detail"),
        ],
        None,
        &["sg-ctl-flows-list(1)", "sg-ctl-flows-terminate(1)"],
    ),
    page(
        "flows list",
        &[
            (
                "sg-ctl flows list --state established",
                "established connections",
            ),
            (
                "sg-ctl flows list --peer 203.0.113.0/24 --json",
                "those with a network, for a program",
            ),
        ],
        None,
        &["sg-ctl-flows-show(1)"],
    ),
    page(
        "flows show",
        &[
            (
                "sg-ctl flows show --port 22",
                "which rule allowed a connection",
            ),
            (
                "sg-ctl flows show --peer 203.0.113.9",
                "every connection with a machine",
            ),
        ],
        None,
        &["sg-ctl-flows-list(1)"],
    ),
    page(
        "flows terminate",
        &[
            (
                "sg-ctl flows terminate --peer 203.0.113.9",
                "close the connections with a machine",
            ),
            (
                "sg-ctl flows terminate --all --dry-run",
                "how many it would be",
            ),
        ],
        None,
        &["sg-ctl-flows-list(1)", "sg-ctl-rule-remove(1)"],
    ),
    page(
        "explain",
        &[
            (
                "sg-ctl explain eth0 ingress ssh 198.51.100.7",
                "why a machine does or does not reach SSH",
            ),
            (
                "sg-ctl explain eth0 egress tcp 198.51.100.7:443",
                "whether this machine may open a connection",
            ),
        ],
        Some("the packet is dropped"),
        &["sg-ctl-trace(1)", "sg-ctl-diagnose(1)", "sg-ctl-events(1)"],
    ),
    page(
        "trace",
        &[
            (
                "sg-ctl trace eth0 --peer 198.51.100.7 --port 443",
                "what becomes of a client's packets, for 30 seconds",
            ),
            (
                "sg-ctl trace eth0 --peer 2001:db8::/32 --for 5m --json",
                "all of a network's, an object a line",
            ),
        ],
        None,
        &["sg-ctl-explain(1)", "sg-ctl-events(1)"],
    ),
    page(
        "diagnose",
        &[
            (
                "sg-ctl diagnose 198.51.100.7 443",
                "try a connection, and say what prevents it",
            ),
            (
                "sg-ctl diagnose 192.0.2.53 53 --protocol udp --timeout 1",
                "by UDP",
            ),
        ],
        Some("something prevents the connection"),
        &["sg-ctl-explain(1)"],
    ),
    page(
        "verify",
        &[
            ("sg-ctl verify", "compare the kernel with what is stored"),
            ("sg-ctl verify --json", "the same for a program"),
        ],
        Some("something differs"),
        &["sg-ctl-restore(1)", "sg-ctl-doctor(1)"],
    ),
    page(
        "doctor",
        &[
            (
                "sg-ctl doctor",
                "whether this machine can enforce a policy, and what to do if not",
            ),
            ("sg-ctl doctor --json", "the same for a program"),
        ],
        Some("there is a problem"),
        &["sg-ctl-verify(1)", "sg-ctl-status(1)"],
    ),
    page(
        "limits",
        &[
            ("sg-ctl limits", "how much a policy may hold"),
            (
                "sg-ctl limits set flows=1000000",
                "make room for more connections",
            ),
        ],
        None,
        &["sg-ctl-limits-set(1)"],
    ),
    page(
        "limits set",
        &[
            (
                "sg-ctl limits set flows=1000000",
                "make room for more connections",
            ),
            ("sg-ctl limits set rules=default", "back to the default"),
        ],
        None,
        &["sg-ctl-limits(1)"],
    ),
    page(
        "completions",
        &[
            (
                "sg-ctl completions bash >/etc/bash_completion.d/sg-ctl",
                "for every bash",
            ),
            ("sg-ctl completions zsh", "for zsh"),
        ],
        None,
        &["sg-ctl(1)"],
    ),
    page(
        "schema",
        &[
            (
                "sg-ctl schema >policy.schema.json",
                "write the schema into a file",
            ),
            ("sg-ctl check policy.yaml", "check a file without an editor"),
        ],
        None,
        &["sg-policy(5)"],
    ),
];

/// Commands by what they are for; what no group names stands at the end.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Change the policy",
        &[
            "apply",
            "diff",
            "check",
            "export",
            "import",
            "group",
            "rule",
            "prefix-list",
            "vpc",
        ],
    ),
    (
        "Protect interfaces",
        &[
            "attach", "detach", "restore", "confirm", "rollback", "daemon", "api",
        ],
    ),
    (
        "Find out why",
        &["explain", "trace", "diagnose", "verify", "doctor"],
    ),
    ("Watch", &["status", "stats", "top", "events", "flows"]),
];

/// What most users type most of the time.
const COMMON: &[&str] = &["apply", "attach", "status", "explain", "events", "doctor"];

/// The command line with everything that help and the manual say.
pub(super) fn command() -> Command {
    let root = Cli::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\nOptions:\n  \
         -h, --help     Print help\n  -V, --version  Print version\n\n\
         Global options:\n{}\n\n`sg-ctl COMMAND --help` describes a command, with examples. \
         `man 5 sg-policy` describes the\npolicy file. Exit status: 0 done, 1 a question was asked \
         and something was found, 2 bad input or failure;\nthen nothing was changed.",
        groups(&root),
        global_options(&root),
    );
    let root = with_global_options_apart(root.help_template(template));
    with_pages(root, "")
}

fn global_options(root: &Command) -> String {
    let global = root.get_arguments().filter(|option| option.is_global_set());
    let lines = global.filter_map(|option| {
        let (long, value) = (option.get_long()?, option.get_value_names()?.first()?);
        let default = option.get_default_values().first()?.to_string_lossy();
        let variable = option.get_env()?.to_string_lossy();
        let help = option.get_help()?;
        let option = format!("--{long} <{value}>");
        Some(format!(
            "      {option:<18}  {help} [env: {variable}] [default: {default}]"
        ))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn with_global_options_apart(command: Command) -> Command {
    command.mut_args(|argument| match argument.is_global_set() {
        true => argument.help_heading("Global options"),
        false => argument,
    })
}

/// Adds the page of a command, and those of the commands below it.
fn with_pages(command: Command, path: &str) -> Command {
    let command = match find(path) {
        Some(page) if !path.is_empty() => command.after_long_help(text(page)),
        _ => command,
    };
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name()).trim().to_owned();
        with_pages(below, &path)
    })
}

/// The page of a command, by the words after `sg-ctl`.
pub(super) fn find(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.command == path)
}

/// The sections of a page by their headings, with their lines.
pub(super) fn sections(page: &Page) -> Vec<(&'static str, Vec<(String, String)>)> {
    let pairs = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        pairs.map(|&(a, b)| (a.to_owned(), b.to_owned())).collect()
    };
    let mut exit_status = vec![("0", "done, or nothing was found")];
    exit_status.extend(page.exit_1.map(|meaning| ("1", meaning)));
    exit_status.push(("2", "bad input or failure; nothing was changed"));
    let see_also = page.see_also.join(", ");
    vec![
        ("Examples", pairs(page.examples)),
        ("Files", pairs(FILES)),
        ("Environment", pairs(ENVIRONMENT)),
        ("Exit status", pairs(&exit_status)),
        ("See also", vec![(see_also, String::new())]),
    ]
}

const FILES: &[(&str, &str)] = &[
    ("/var/lib/sg", "the stored policy"),
    ("/run/sg", "what is in force; gone after a reboot"),
    ("/etc/sg/daemon.toml", "the configuration of the daemon"),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "SG_STATE_DIR, SG_RUN_DIR",
        "other folders, as --state-dir and --run-dir",
    ),
    ("NO_COLOR", "print without colours"),
];

fn text(page: &Page) -> String {
    let sections = sections(page).into_iter().map(|(heading, lines)| {
        let width = lines.iter().map(|(first, _)| first.len()).max();
        let width = width.unwrap_or_default();
        let lines = lines.iter().map(|(first, second)| match heading {
            "Examples" => format!("  # {second}\n  {first}"),
            _ => format!("  {first:width$}  {second}").trim_end().to_owned(),
        });
        let lines: Vec<_> = lines.collect();
        format!("{heading}:\n{}", lines.join("\n"))
    });
    sections.collect::<Vec<_>>().join("\n\n")
}

/// The commands that most users need, for a call without any.
pub(super) fn overview() -> String {
    let root = Cli::command();
    format!(
        "Security groups for any Linux machine\n\nCommon commands:\n{}\n\n\
         `sg-ctl --help` lists all commands.\n",
        lines(&root, COMMON)
    )
}

fn groups(root: &Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text.push_str(&format!("{heading}:\n{}\n\n", lines(root, names)));
    }
    let rest = root.get_subcommands().filter(|command| {
        let name = command.get_name();
        !command.is_hide_set() && !GROUPS.iter().any(|(_, names)| names.contains(&name))
    });
    let rest: Vec<_> = rest.map(Command::get_name).collect();
    text.push_str(&format!("More:\n{}\n", lines(root, &rest)));
    text
}

fn lines(root: &Command, names: &[&str]) -> String {
    let lines = names.iter().filter_map(|name| {
        let about = root.find_subcommand(name)?.get_about()?;
        Some(format!("  {name:<12} {about}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// The visible commands by the words after `sg-ctl`.
    fn paths(command: &Command, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        for below in command.get_subcommands() {
            if !below.is_hide_set() && below.get_name() != "help" {
                paths(below, format!("{path} {}", below.get_name()).trim(), found);
            }
        }
    }

    #[test]
    fn every_command_has_a_page_with_two_examples() {
        let mut found = Vec::new();
        paths(&command(), "", &mut found);
        for path in &found {
            let page = find(path).unwrap_or_else(|| panic!("`sg-ctl {path}` has no page"));
            assert!(page.examples.len() >= 2, "{path}");
        }
        for page in PAGES {
            let is_there = found.iter().any(|path| path == page.command);
            assert!(is_there, "there is no command `sg-ctl {}`", page.command);
        }
    }

    #[test]
    fn every_example_is_a_command_that_is_understood() {
        let examples = PAGES.iter().flat_map(|page| page.examples);
        for (line, _) in examples {
            // What comes after a `>` is for the shell.
            let line = line.split(" >").next().unwrap_or_default();
            let line = line.replace("'the site'", "site");
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn see_also_names_pages_that_are_written() {
        let written = |name: &str| {
            let path = name
                .strip_prefix("sg-ctl")
                .unwrap_or(name)
                .trim_start_matches('-');
            name == "sg-policy(5)"
                || PAGES
                    .iter()
                    .any(|page| format!("{}(1)", page.command.replace(' ', "-")) == path)
        };
        for name in PAGES.iter().flat_map(|page| page.see_also) {
            assert!(written(name), "{name}");
        }
    }

    #[test]
    fn every_help_ends_with_files_environment_and_exit_status() {
        let mut root = command();
        root.build();
        let apply = root.find_subcommand_mut("apply").unwrap();
        let help = apply.render_long_help().to_string();
        let places = [
            "Global options:",
            "Examples:",
            "Files:",
            "Environment:",
            "Exit status:",
            "See also:",
        ]
        .map(|heading| {
            help.find(heading)
                .unwrap_or_else(|| panic!("no {heading} in {help}"))
        });
        assert!(places.is_sorted(), "{help}");
        assert!(
            help.contains("The file is the whole truth of its VPC"),
            "{help}"
        );
        let whole = root.render_long_help().to_string();
        assert_eq!(whole.matches("--state-dir").count(), 1, "{whole}");
        assert!(overview().contains("  explain      "), "{}", overview());
    }
}
