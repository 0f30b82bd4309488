//! What Prometheus reads, in the OpenMetrics text format 1.0.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use sg_common::report::Verdict;
use tokio::task::spawn_blocking;

use super::state::{Report, State};
use crate::controller::{self, Installation, View};
use crate::observe::{ReasonStats, RuleStats, Stats, Status};

/// More rules have no series of their own unless the configuration asks for them.
const MOST_RULES: usize = 10_000;

const NO_LABELS: [(&str, &str); 0] = [];

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A counter's name, its help, and where it is found.
type Sum<T> = (&'static str, &'static str, fn(&T) -> u64);

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    match spawn_blocking(move || text(&state)).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(failed)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{failed}\n")).into_response()
        }
        Err(failed) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{failed}\n")).into_response(),
    }
}

fn text(state: &State) -> controller::Result<String> {
    let mut registry = Registry::with_prefix("sg");
    let scrape = Installation::look(&state.options, || Scrape::read(state))?;
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    // Writing into a string fails only where something cannot be encoded, and then less is shown.
    let _ = encode(&mut text, &registry);
    Ok(text)
}

/// Everything that one answer is made of.
#[derive(Debug)]
struct Scrape {
    report: Report,
    status: Status,
    stats: Stats,
    shows_rules: bool,
}

impl Scrape {
    fn read(state: &State) -> controller::Result<Self> {
        let view = View::open(&state.options)?;
        let dataplane = view.dataplane()?;
        let states = view.interface_states()?;
        let status = Status::read(view.revision, &view.policy, &states, dataplane.as_ref())?;
        let stats = Stats::read(&view.policy, dataplane.as_ref(), None)?;
        Ok(Self {
            report: state.report(),
            status,
            shows_rules: state.rules().unwrap_or(stats.rules.len() <= MOST_RULES),
            stats,
        })
    }

    fn interfaces(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sums: [Sum<ReasonStats>; 2] = [
            (
                "packets",
                "Packets judged, by interface, direction, verdict and reason",
                |count| count.packets,
            ),
            (
                "bytes",
                "Bytes of the frames judged, by interface, direction, verdict and reason",
                |count| count.bytes,
            ),
        ];
        for (name, help, value) in sums {
            let mut family = Family::counter(to, name, help)?;
            for interface in &self.stats.interfaces {
                for count in &interface.reasons {
                    let verdict = match count.reason.verdict() {
                        Verdict::Pass => "pass",
                        Verdict::Drop if count.audit => "pass",
                        Verdict::Drop => "drop",
                    };
                    let labels = [
                        ("interface", interface.name.as_str()),
                        ("vpc", interface.vpc.as_str()),
                        ("direction", count.direction.name()),
                        ("verdict", verdict),
                        ("reason", count.reason.name()),
                        ("audit", if count.audit { "true" } else { "false" }),
                    ];
                    family.count(&labels, value(count))?;
                }
            }
        }
        let mut family = Family::gauge(
            to,
            "interface_protected",
            "Whether the interface's packets are judged",
        )?;
        for interface in &self.status.interfaces {
            let labels = [
                ("interface", interface.name.as_str()),
                ("vpc", interface.vpc.as_str()),
                ("netns", interface.netns.as_deref().unwrap_or_default()),
                ("side", interface.side),
                ("state", interface.state),
            ];
            family.show(&labels, interface.attached.into())?;
        }
        Ok(())
    }

    fn rules(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sums: [Sum<RuleStats>; 3] = [
            (
                "rule_packets",
                "Packets that a rule admitted, those of its flows included",
                |rule| rule.packets,
            ),
            (
                "rule_bytes",
                "Bytes of the frames that a rule admitted",
                |rule| rule.bytes,
            ),
            ("rule_flows", "Flows that a rule opened", |rule| rule.flows),
        ];
        for (name, help, value) in sums {
            let mut family = Family::counter(to, name, help)?;
            for rule in &self.stats.rules {
                let id = rule.id.to_string();
                let labels = [
                    ("rule", id.as_str()),
                    ("group", rule.group.as_str()),
                    ("vpc", rule.vpc.as_str()),
                    ("direction", rule.direction.name()),
                ];
                family.count(&labels, value(rule))?;
            }
        }
        Ok(())
    }

    fn flows(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let flows = &self.status.flows;
        let mut family = Family::gauge(to, "flows", "Tracked flows, by state")?;
        family.show(&[("state", "embryonic")], flows.embryonic)?;
        family.show(&[("state", "assured")], flows.assured)?;
        self.one(
            to,
            "flows_capacity",
            "Assured flows that there is room for",
            flows.capacity,
        )?;
        let mut family = Family::gauge(
            to,
            "full",
            "Quotas and tables that have no room for another flow",
        )?;
        for full in &self.status.full {
            let labels = [
                (
                    "interface",
                    full.interface.as_ref().map_or("", |name| name.as_str()),
                ),
                ("vpc", full.vpc.as_ref().map_or("", |name| name.as_str())),
                ("reason", full.reason.name()),
            ];
            family.show(&labels, 1)?;
        }
        Ok(())
    }

    fn daemon(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let followed = &self.report.followed;
        self.one(
            to,
            "policy_revision",
            "The revision of the stored policy",
            self.status.revision,
        )?;
        self.one(
            to,
            "rules",
            "Rules of the groups that interfaces are in",
            count(self.stats.rules.len()),
        )?;
        self.one(
            to,
            "unconfirmed_change",
            "Whether a change waits for its confirmation",
            self.status.unconfirmed.is_some().into(),
        )?;
        self.one(
            to,
            "namespaces",
            "Network namespaces that are watched",
            count(followed.namespaces),
        )?;
        let counters = [
            (
                "looks",
                "Times that the daemon compared the machine with what is in force",
                followed.looks,
            ),
            (
                "changes",
                "Times that the daemon installed the policy for a machine that had changed",
                followed.changes,
            ),
            (
                "failures",
                "Times that the daemon could not make the policy hold",
                followed.failures,
            ),
        ];
        for (name, help, value) in counters {
            Family::counter(to, name, help)?.count(&NO_LABELS, value)?;
        }
        self.one(
            to,
            "failing",
            "Whether the policy could not be made to hold at the last look",
            followed.failure.is_some().into(),
        )?;
        let seconds = Duration::from_micros(followed.last_change_us).as_secs_f64();
        let gauge = ConstGauge::new(seconds);
        let help = "How long the last installation took, from the news of the change";
        let to = to.encode_descriptor(
            "last_change",
            help,
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?;
        gauge.encode(to)
    }

    fn one(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &'static str,
        help: &'static str,
        value: u64,
    ) -> fmt::Result {
        Family::gauge(to, name, help)?.show(&NO_LABELS, value)
    }
}

fn count(many: usize) -> u64 {
    u64::try_from(many).unwrap_or(u64::MAX)
}

impl Collector for Scrape {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", self.report.daemon_version.as_str())];
        Family::gauge(
            &mut to,
            "build_info",
            "The version and commit of the daemon",
        )?
        .show(&version, 1)?;
        self.interfaces(&mut to)?;
        if self.shows_rules {
            self.rules(&mut to)?;
        }
        self.flows(&mut to)?;
        self.daemon(&mut to)
    }
}

/// The series of one name.
struct Family<'a>(MetricEncoder<'a>);

impl<'a> Family<'a> {
    fn counter(
        to: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, fmt::Error> {
        to.encode_descriptor(name, help, None, MetricType::Counter)
            .map(Self)
    }

    fn gauge(
        to: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, fmt::Error> {
        to.encode_descriptor(name, help, None, MetricType::Gauge)
            .map(Self)
    }

    fn count(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_family(labels)?)
    }

    fn show(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        // Nothing that is shown comes near the limit.
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(self.0.encode_family(labels)?)
    }
}
