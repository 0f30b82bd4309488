//! A new build takes over what an older one has installed: no packet passes unjudged, none that is
//! allowed is lost, and what is tracked stays tracked.

use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tests::lab::{Lab, Pair};
use tests::sg::{Sg, sg_ctl};
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Session, TcpEcho, UdpEcho, tcp_connects, udp_roundtrip};

const UPGRADES: usize = 100;

/// Egress is not open to everyone, so that every connection is tracked.
const POLICY: &str = "
groups:
  g:
    ingress:
      - {protocol: udp, ports: 53, from: [10.0.0.0/24]}
      - {protocol: tcp, ports: 7, from: [10.0.0.0/24]}
      - {protocol: udp, ports: 5000, from: [10.0.0.0/24]}
    egress:
      - {protocol: tcp, ports: 1, to: [10.0.0.1/32]}
interfaces:
  eth0: {groups: [g]}
";

/// Asks on one socket of the world and waits for each answer; says how many there were. What is
/// lost is not sent again.
fn converse(socket: &UdpSocket, over: &AtomicBool) -> Result<u64> {
    let mut asked: u64 = 0;
    while !over.load(Ordering::Relaxed) {
        socket.send(&asked.to_be_bytes())?;
        let mut answer = [0; 8];
        let length = socket
            .recv(&mut answer)
            .with_context(|| format!("question {asked} of the tracked flow got no answer"))?;
        ensure!(answer[..length] == asked.to_be_bytes(), "a mixed-up answer");
        asked += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(asked)
}

/// What a listener behind a closed port gets.
fn listen_in_vain(pair: &Pair, over: &AtomicBool, got: &AtomicU64) -> Result<()> {
    let socket = pair.host.enter(|| Ok(UdpSocket::bind("10.0.0.10:54")?))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    while !over.load(Ordering::Relaxed) {
        if socket.recv(&mut [0; 64]).is_ok() {
            got.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn knock_in_vain(pair: &Pair, over: &AtomicBool) -> Result<u64> {
    let socket = pair.world.enter(|| Ok(UdpSocket::bind("10.0.0.1:0")?))?;
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        socket.send_to(b"let me in", "10.0.0.10:54")?;
        sent += 1;
        thread::sleep(Duration::from_micros(300));
    }
    Ok(sent)
}

/// New flows, each judged by the rules. An answer may be late on a busy machine; whether a packet
/// was dropped is for the counters to say.
fn ask_anew(pair: &Pair, over: &AtomicBool) -> Result<u64> {
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        let answered = (0..10).find_map(|_| {
            let udp = udp_roundtrip(pair.world.at("10.0.0.1").ok()?, "10.0.0.10:53").ok()?;
            let tcp = tcp_connects(pair.world.at("10.0.0.1").ok()?, "10.0.0.10:7").ok()?;
            ((udp, tcp) == (Connected, Connected)).then_some(())
        });
        ensure!(answered.is_some(), "no answer after {asked} questions");
        asked += 1;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(asked)
}

/// How often each reason dropped something.
fn drops(sg: &Sg) -> Result<Vec<(String, u64)>> {
    let stats = sg.json(&["stats"])?;
    let reasons = stats["interfaces"][0]["reasons"].as_array();
    let reasons = reasons.context("no reasons")?.iter();
    let passes = [
        "rule",
        "tracked",
        "untracked",
        "link-protocol",
        "neighbor-discovery",
        "multicast-membership",
    ];
    let counted = reasons.filter_map(|reason| {
        let name = reason["reason"].as_str()?;
        (!passes.contains(&name)).then(|| Some((name.to_owned(), reason["packets"].as_u64()?)))?
    });
    Ok(counted.collect())
}

#[test]
fn a_hundred_upgrades_under_traffic() -> Result<()> {
    upgrades_under_traffic(UPGRADES, |_| false)
}

/// Each third upgrade is one to a kernel with links, as far as anyone can tell, and the one after it
/// goes back.
#[test]
fn upgrades_of_filters_and_to_links_under_traffic() -> Result<()> {
    upgrades_under_traffic(UPGRADES / 4, |upgrade| upgrade % 3 != 2)
}

/// `has_filters` tells which upgrades attach as on a kernel without TCX links.
fn upgrades_under_traffic(upgrades: usize, has_filters: impl Fn(usize) -> bool) -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.use_filters(has_filters(0));
    let builds = [sg.another_build()?, sg_ctl()?.to_path_buf()];
    sg.apply(POLICY)?;
    let _listeners = (
        UdpEcho::listen(&pair.host, ":53")?,
        UdpEcho::listen(&pair.host, ":5000")?,
        TcpEcho::listen(&pair.host, ":7")?,
    );
    let tracked = pair.world.enter(|| Ok(UdpSocket::bind("10.0.0.1:6000")?))?;
    tracked.connect("10.0.0.10:5000")?;
    tracked.set_read_timeout(Some(Duration::from_secs(5)))?;
    tracked.send(b"first")?;
    tracked.recv(&mut [0; 8])?;
    // From here on only its flow lets it in.
    let words = [
        "--ingress",
        "--protocol",
        "udp",
        "--ports",
        "5000",
        "--from",
        "10.0.0.0/24",
    ];
    sg.run(&[&["rule", "remove", "g"], words.as_slice()].concat())?
        .succeeded()?;
    ensure!(udp_roundtrip(pair.world.at("10.0.0.1")?, "10.0.0.10:5000")? == TimedOut);

    let (over, got) = (AtomicBool::new(false), AtomicU64::new(0));
    let done = thread::scope(|scope| {
        let conversation = scope.spawn(|| converse(&tracked, &over));
        let anew = scope.spawn(|| ask_anew(&pair, &over));
        let knocking = scope.spawn(|| knock_in_vain(&pair, &over));
        let listening = scope.spawn(|| listen_in_vain(&pair, &over, &got));
        let upgraded = (0..upgrades).try_for_each(|upgrade| {
            sg.use_filters(has_filters(upgrade));
            let build = &builds[upgrade % builds.len()];
            let ran = sg.run_build(build, &["restore"])?.succeeded()?;
            ensure!(ran.stderr.is_empty(), "{ran}");
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        let panicked = |_| Err(anyhow!("panicked"));
        let listened = listening
            .join()
            .unwrap_or_else(|_| Err(anyhow!("panicked")));
        let counts =
            [conversation, anew, knocking].map(|thread| thread.join().unwrap_or_else(panicked));
        upgraded.and(listened).map(|()| counts)
    })?;
    let [answered, anew, knocked] = done;
    let (answered, anew, knocked) = (answered?, anew?, knocked?);
    ensure!(
        answered > 100 && anew > upgrades as u64 && knocked > 1_000,
        "{answered} {anew} {knocked}"
    );
    ensure!(
        got.load(Ordering::Relaxed) == 0,
        "{got:?} packets passed unjudged"
    );

    let dropped = drops(&sg)?;
    ensure!(
        dropped.iter().all(|(reason, _)| reason == "no-rule"),
        "dropped: {dropped:?}"
    );
    // The one more is that of the test above.
    ensure!(
        dropped == [("no-rule".to_owned(), knocked + 1)],
        "{knocked} knocked, dropped: {dropped:?}"
    );
    println!(
        "{upgrades} upgrades: {answered} answers to one tracked flow, {anew} to new ones each of UDP \
         and TCP, {knocked} unwanted packets dropped"
    );
    Ok(())
}

#[test]
fn a_version_with_other_tables_is_refused_until_it_is_asked_to_take_over() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":7")?;
    let is_protected = || -> Result<bool> {
        let open = tcp_connects(&pair.world, "10.0.0.10:7")?;
        let closed = tcp_connects(&pair.world, "10.0.0.10:8")?;
        Ok((open, closed) == (Connected, TimedOut))
    };
    ensure!(is_protected()?);

    // The records of the first version begin so, for tables that no version has.
    let record = sg.run_dir().join("installed");
    fs::write(&record, (1_u32 << 16 | 0xffff).to_le_bytes())?;

    for refused in [
        &["restore"][..],
        &["group", "create", "web"],
        &["detach", "eth0"],
    ] {
        let ran = sg.run(refused)?;
        ensure!(ran.code == Some(2), "{ran}");
        ensure!(ran.stderr.contains("`sg-ctl restore --take-over`"), "{ran}");
        ensure!(is_protected()?, "{ran}");
    }
    sg.run(&["restore", "--take-over"])?.succeeded()?;
    ensure!(is_protected()?, "taking over left it open");
    sg.run(&["verify"])?.succeeded()?;
    Ok(())
}

/// Earlier versions had the counters of reasons beside the flows, where this one does not look.
#[test]
fn a_build_that_counts_elsewhere_is_taken_over_with_its_flows() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":7")?;
    let mut session = Session::open(pair.world.at("10.0.0.1:40000")?, "10.0.0.10:7")?;
    ensure!(session.echoes()? == Connected);
    let bpf = sg.run_dir().join("bpf");
    fs::rename(bpf.join("layout-1/REASONS"), bpf.join("flows/REASONS"))?;
    // Such a version lacks other pins too, so that none is put back.
    fs::write(sg.run_dir().join("updating"), "")?;
    // From here on only its flow lets it in.
    let rule = "rule remove g --ingress --protocol tcp --ports 7 --from 10.0.0.0/24";
    let rule: Vec<&str> = rule.split(' ').collect();
    let another = sg.another_build()?;
    sg.run_build(&another, &rule)?.succeeded()?;
    sg.run_build(&another, &["verify"])?.succeeded()?;
    ensure!(session.echoes()? == Connected);
    ensure!(tcp_connects(pair.world.at("10.0.0.1")?, "10.0.0.10:7")? == TimedOut);
    Ok(())
}
