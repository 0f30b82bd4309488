//! Whatever kind of address an interface gets or loses, the daemon has it belong to the groups as long as
//! the machine may use it.

use anyhow::{Context as _, Result, ensure};
use tests::daemon::{Daemon, eventually};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;

const POLICY: &str = "{groups: {app: {}, web: {ingress: [{protocol: tcp, ports: 80, from: sg:app}]}}, \
                      interfaces: {eth0: {groups: [web]}, eth1: {groups: [app]}}}";

struct Followed {
    pair: Pair,
    sg: Sg,
    _daemon: Daemon,
}

impl Followed {
    fn begin() -> Result<Self> {
        let pair = Lab::pair()?;
        let sg = Sg::on(&pair.host)?;
        pair.lab.join((&pair.world, "eth1"), (&pair.host, "eth1"))?;
        pair.host.ip("link set eth1 up")?;
        pair.world.ip("link set eth1 up")?;
        sg.apply(POLICY)?;
        let daemon = Daemon::start(&sg, "")?;
        Ok(Self {
            pair,
            sg,
            _daemon: daemon,
        })
    }

    fn address(&self, words: &str) -> Result<()> {
        self.pair
            .host
            .ip(&format!("address {words} dev eth1"))
            .map(drop)
    }

    fn set(&self, name: &str, value: u8) -> Result<()> {
        let setting = format!("net.{name}={value}");
        self.pair
            .host
            .run("sysctl", &["--quiet", "--write", &setting])
            .map(drop)
    }

    /// The words in which the machine speaks of an address.
    fn shown(&self, address: &str) -> Result<String> {
        let all = self.pair.host.ip("-oneline address show dev eth1")?;
        let found = all.lines().find(|line| line.contains(address));
        Ok(found.unwrap_or_default().to_owned())
    }

    /// What the tables in force say of a packet from an address.
    fn is_member(&self, address: &str) -> Result<bool> {
        let from = format!("[{address}]:1");
        let told = self
            .sg
            .json(&["explain", "eth0", "ingress", "tcp", &from, ":80"])?;
        Ok(told["verdict"] == "pass")
    }

    fn comes(&self, address: &str) -> Result<()> {
        eventually(&format!("{address} is a member"), || {
            self.is_member(address)
        })
    }

    fn goes(&self, address: &str) -> Result<()> {
        eventually(&format!("{address} is no member"), || {
            Ok(!self.is_member(address)?)
        })
    }
}

#[test]
fn an_address_that_is_promoted_stays_a_member() -> Result<()> {
    let followed = Followed::begin()?;
    followed.set("ipv4.conf.eth1.promote_secondaries", 1)?;
    for address in ["10.7.0.7", "10.7.0.8", "10.7.0.9"] {
        followed.address(&format!("add {address}/24"))?;
    }
    followed.comes("10.7.0.9")?;
    ensure!(followed.shown("10.7.0.8")?.contains("secondary"));
    followed.address("del 10.7.0.7/24")?;
    followed.goes("10.7.0.7")?;
    ensure!(!followed.shown("10.7.0.8")?.contains("secondary"));
    followed.comes("10.7.0.8")?;
    followed.comes("10.7.0.9")
}

#[test]
fn an_address_is_a_member_unless_another_machine_has_it() -> Result<()> {
    let followed = Followed::begin()?;
    let world = &followed.pair.world;
    // Where the lab is in a hurry, it is not.
    followed.set("ipv6.conf.eth1.accept_dad", 1)?;
    followed.set("ipv6.conf.eth1.dad_transmits", 1)?;
    world.ip("address add 2001:db8:7::66/64 dev eth1 nodad")?;
    // It is tentative for a second or two.
    followed.address("add 2001:db8:7::65/64")?;
    followed.comes("2001:db8:7::65")?;
    followed.address("add 2001:db8:7::66/64")?;
    eventually("it is found to be another's", || {
        Ok(followed.shown("2001:db8:7::66")?.contains("dadfailed"))
    })?;
    followed.goes("2001:db8:7::66")?;
    eventually("the other is the machine's", || {
        Ok(!followed.shown("2001:db8:7::65")?.contains("tentative"))
    })?;
    followed.comes("2001:db8:7::65")?;
    // Connections that there are go on from an address that is deprecated.
    followed.address("change 2001:db8:7::65/64 preferred_lft 0 valid_lft 600")?;
    ensure!(followed.shown("2001:db8:7::65")?.contains("deprecated"));
    followed.comes("2001:db8:7::65")?;
    ensure!(followed.sg.json(&["verify"])?["same"] == true);
    Ok(())
}

#[test]
fn a_temporary_address_is_a_member() -> Result<()> {
    let followed = Followed::begin()?;
    followed.set("ipv6.conf.eth1.use_tempaddr", 2)?;
    followed.address("add 2001:db8:7::5/64 mngtmpaddr")?;
    let temporary = || -> Result<Option<String>> {
        let all = followed
            .pair
            .host
            .ip("-6 -oneline address show dev eth1 temporary")?;
        let mut words = all.split_whitespace();
        let found = words.by_ref().find(|word| *word == "inet6");
        Ok(found.and(words.next()).map(str::to_owned))
    };
    eventually("the kernel has made one", || Ok(temporary()?.is_some()))?;
    let address = temporary()?.context("no temporary address")?;
    let (address, _) = address.split_once('/').context("no length")?;
    followed.comes(address)?;
    followed.address("del 2001:db8:7::5/64")?;
    followed.goes(address)
}

#[test]
fn the_addresses_of_a_device_that_leaves_are_members_no_more() -> Result<()> {
    let followed = Followed::begin()?;
    followed.address("add 10.7.0.7/24")?;
    followed.comes("10.7.0.7")?;
    let elsewhere = followed.pair.lab.host("elsewhere")?;
    let leave = format!("link set eth1 netns {}", elsewhere.namespace());
    followed.pair.host.ip(&leave)?;
    followed.goes("10.7.0.7")
}
