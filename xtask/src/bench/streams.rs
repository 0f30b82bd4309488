//! Allowed TCP between two machines: how much, how soon, how many connections.
//!
//! Three equal pairs of machines stand at once: without a filter, with nftables' stateful rules,
//! with sg at its default hook. They take turns within each round, from the first to the last and
//! back in the next. The end that sends keeps to the first CPU and the one that receives to the last:
//! where the scheduler puts them decides more than any filter. Of a stream its beginning, while
//! TCP's windows grow, does not count. CPU time is that of both ends together, the kernel's part on
//! their behalf included.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tests::lab::{Lab, Pair};
use tests::sg::Sg;

use crate::measure::{Rounds, Taken};
use crate::{Effort, nftables};

/// As [`nftables::STATEFUL`], with sg's words.
const POLICY: &str = "\
groups:
  server:
    ingress:
    - {protocol: tcp, ports: 5001-5003, from: [10.0.0.0/24]}
interfaces:
  eth0: {groups: [server]}
";
const BULK: &str = "10.0.0.10:5001";
const ECHO: &str = "10.0.0.10:5002";
const CONNECTIONS: &str = "10.0.0.10:5003";

/// Nothing takes this long; an end that fails must not leave the other waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two machines and what came of their talk, a figure a round.
struct Contestant {
    /// Goes before the machines.
    _sg: Option<Sg>,
    pair: Pair,
    gigabits: Vec<f64>,
    cpu_seconds_per_gigabyte: Vec<f64>,
    round_trip_us: Vec<f64>,
    connections: Vec<f64>,
}

impl Contestant {
    fn new(protect: impl FnOnce(&Pair) -> Result<Option<Sg>>) -> Result<Self> {
        let pair = Lab::pair()?;
        Ok(Self {
            _sg: protect(&pair)?,
            pair,
            gigabits: Vec::new(),
            cpu_seconds_per_gigabyte: Vec::new(),
            round_trip_us: Vec::new(),
            connections: Vec::new(),
        })
    }

    fn talk(&mut self, span: Duration, names: &[&str]) -> Result<()> {
        if names.iter().any(|name| name.starts_with("tcp_")) {
            let (bytes, took, cpu) = bulk(&self.pair, span)?;
            self.gigabits.push(bytes * 8.0 / 1e9 / took.as_secs_f64());
            self.cpu_seconds_per_gigabyte
                .push(cpu.as_secs_f64() / (bytes / 1e9));
        }
        if names.contains(&"rr_over_none") {
            self.round_trip_us.push(round_trip(&self.pair, span)?);
        }
        if names.contains(&"crr_over_nft") {
            self.connections.push(connections(&self.pair, span)?);
        }
        Ok(())
    }
}

/// All four measures.
pub(crate) fn streams(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let mut none = Contestant::new(|_| Ok(None))?;
    let mut nft = Contestant::new(|pair| {
        nftables::is_there(&pair.host)?;
        nftables::load(&pair.host, nftables::STATEFUL)?;
        Ok(None)
    })
    .map_err(|error| format!("{error:#}"));
    let mut sg = Contestant::new(|pair| {
        let sg = Sg::on(&pair.host)?;
        sg.apply(POLICY)?;
        Ok(Some(sg))
    })?;
    let span = effort.span() / 2;
    let mut order = vec![&mut none];
    order.extend(nft.as_mut().ok());
    order.push(&mut sg);
    effort.rounds(40, || {
        for contestant in &mut order {
            contestant.talk(span, names)?;
        }
        order.reverse();
        Ok(())
    })?;
    let taken = names.iter().map(|name| {
        let over = |other: &Contestant, figures: fn(&Contestant) -> &Vec<f64>, unit: &str| {
            let ratios = figures(&sg)
                .iter()
                .zip(figures(other))
                .map(|(sg, other)| sg / other);
            Taken::new(name, Rounds::of(ratios))
                .with_median(unit, figures(&sg).iter().copied())
                .with_median(&format!("{unit}_of_other"), figures(other).iter().copied())
        };
        let with_cpu = |taken: Taken, other: &Contestant| {
            taken
                .with_median("cpu_s_per_gb", sg.cpu_seconds_per_gigabyte.iter().copied())
                .with_median(
                    "cpu_s_per_gb_of_other",
                    other.cpu_seconds_per_gigabyte.iter().copied(),
                )
        };
        let beside_nft = |compare: &dyn Fn(&Contestant) -> Taken| match &nft {
            Ok(nft) => compare(nft),
            Err(why) => Taken::missing(name, why),
        };
        match *name {
            "tcp_over_none" => with_cpu(over(&none, |c| &c.gigabits, "gbps"), &none),
            "tcp_over_nft" => beside_nft(&|nft| with_cpu(over(nft, |c| &c.gigabits, "gbps"), nft)),
            "rr_over_none" => over(&none, |c| &c.round_trip_us, "us"),
            _ => beside_nft(&|nft| over(nft, |c| &c.connections, "per_s")),
        }
    });
    Ok(taken.collect())
}

/// A listening socket on the protected machine and the first connection to it, both ends.
fn connect(pair: &Pair, to: &str) -> Result<(TcpStream, TcpStream)> {
    let listener = pair.host.enter(|| Ok(TcpListener::bind(to)?))?;
    let here = pair
        .world
        .enter(|| TcpStream::connect(to).with_context(|| format!("connecting to {to}")))?;
    let (there, _) = listener.accept()?;
    for end in [&here, &there] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_write_timeout(Some(PATIENCE))?;
    }
    Ok((here, there))
}

/// Bytes that the protected machine received, in which time, and the CPU time it took.
fn bulk(pair: &Pair, span: Duration) -> Result<(f64, Duration, Duration)> {
    const CHUNK: usize = 128 << 10;
    let (mut here, mut there) = connect(pair, BULK)?;
    let warm_up = span / 2;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            crate::keep_to(0, 0)?;
            let chunk = vec![b'x'; CHUNK];
            let begin = Instant::now();
            while begin.elapsed() < warm_up + span {
                here.write_all(&chunk)?;
            }
            Ok(here.shutdown(Shutdown::Write)?)
        });
        let receiver = scope.spawn(move || -> Result<(f64, Duration, Duration)> {
            crate::keep_to(0, crate::last_cpu()?)?;
            let mut chunk = vec![0; CHUNK];
            let begin = Instant::now();
            while begin.elapsed() < warm_up {
                ensure!(there.read(&mut chunk)? > 0, "the stream ended early");
            }
            let (mut bytes, begin, cpu) = (0, Instant::now(), cpu_time()?);
            loop {
                match there.read(&mut chunk)? {
                    0 => break,
                    read => bytes += read,
                }
            }
            ensure!(bytes > 0, "nothing arrived");
            Ok((bytes as f64, begin.elapsed(), cpu_time()? - cpu))
        });
        let received = joined(receiver);
        joined(sender)?;
        received
    })
}

/// What came of an end.
fn joined<T>(end: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    end.join()
        .map_err(|_| anyhow::anyhow!("an end of the wire panicked"))?
}

/// What this process, with all its threads, has used.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// The median time, in microseconds, until a byte sent to the protected machine is back.
fn round_trip(pair: &Pair, span: Duration) -> Result<f64> {
    let (mut here, mut there) = connect(pair, ECHO)?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            crate::keep_to(0, crate::last_cpu()?)?;
            let mut byte = [0];
            while there.read(&mut byte)? > 0 {
                there.write_all(&byte)?;
            }
            Ok(())
        });
        let asker = scope.spawn(move || -> Result<f64> {
            crate::keep_to(0, 0)?;
            let mut trips = Vec::new();
            let (mut byte, begin) = ([b'x'], Instant::now());
            while begin.elapsed() < span {
                let sent = Instant::now();
                here.write_all(&byte)?;
                here.read_exact(&mut byte)?;
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            here.shutdown(Shutdown::Write)?;
            let rounds = Rounds::of(trips).context("no byte came back")?;
            Ok(rounds.median)
        });
        let median = joined(asker);
        joined(echo)?;
        median
    })
}

/// Connections a second that are opened, carry a byte each way, and are closed by the server, which
/// so keeps what lingers of them.
fn connections(pair: &Pair, span: Duration) -> Result<f64> {
    let listener = pair.host.enter(|| Ok(TcpListener::bind(CONNECTIONS)?))?;
    std::thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<()> {
            crate::keep_to(0, crate::last_cpu()?)?;
            loop {
                let (mut client, _) = listener.accept()?;
                client.set_read_timeout(Some(PATIENCE))?;
                let mut byte = [0];
                client.read_exact(&mut byte)?;
                client.write_all(&byte)?;
                if byte == *b"." {
                    return Ok(());
                }
            }
        });
        let made = pair.world.enter(|| {
            crate::keep_to(0, 0)?;
            let exchange = |word: &[u8; 1]| -> Result<()> {
                let mut server = TcpStream::connect(CONNECTIONS)?;
                server.set_read_timeout(Some(PATIENCE))?;
                server.write_all(word)?;
                let mut answer = Vec::new();
                server.read_to_end(&mut answer)?;
                ensure!(answer == word, "the server answered {answer:?}");
                Ok(())
            };
            let (mut made, begin) = (0_u32, Instant::now());
            while begin.elapsed() < span {
                exchange(b"x")?;
                made += 1;
            }
            let took = begin.elapsed().as_secs_f64();
            exchange(b".")?;
            Ok(f64::from(made) / took)
        })?;
        joined(server)?;
        Ok(made)
    })
}
