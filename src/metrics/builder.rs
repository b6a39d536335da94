//! Makes metrics, registers them, and remembers each for the documentation.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector, process_collector::ProcessCollector,
};

/// What begins every name that is the agent's own.
const NAMESPACE: &str = "quickcmd_agent";

/// One metric, as docs/metrics.md shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// With the namespace.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<&'static str>,
    pub help: String,
}

/// A registry that is being filled.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub registry: Registry,
    pub catalogue: Vec<Entry>,
}

/// Names, labels and buckets are constants of `Metrics::new`, which every test of it runs through.
const CONSTANT: &str = "names and labels are constants, and each is there once";

impl Builder {
    fn add<M: Collector + Clone + 'static>(
        &mut self,
        metric: prometheus::Result<M>,
        kind: &'static str,
        labels: &[&'static str],
    ) -> M {
        let metric = metric.expect(CONSTANT);
        for described in metric.desc() {
            self.catalogue.push(Entry {
                name: described.fq_name.clone(),
                kind,
                labels: labels.to_vec(),
                help: described.help.clone(),
            });
        }
        self.registry.register(Box::new(metric.clone())).expect(CONSTANT);
        metric
    }

    pub fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)), "counter", &[])
    }

    pub fn counters(&mut self, name: &str, labels: &[&'static str], help: &str) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels), "counter", labels)
    }

    pub fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)), "gauge", &[])
    }

    /// A gauge that is 1 and whose labels never change.
    pub fn info(&mut self, name: &str, labels: &[(&'static str, &str)], help: &str) {
        let with_labels = labels.iter().fold(opts(name, help), |opts, (k, v)| opts.const_label(*k, *v));
        let names: Vec<_> = labels.iter().map(|(name, _)| *name).collect();
        self.add(Gauge::with_opts(with_labels), "gauge", &names).set(1.0);
    }

    pub fn histogram(&mut self, name: &str, buckets: &[f64], help: &str) -> Histogram {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts), "histogram", &[])
    }

    pub fn histograms(
        &mut self,
        name: &str,
        labels: &[&'static str],
        buckets: &[f64],
        help: &str,
    ) -> HistogramVec {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, labels), "histogram", labels)
    }

    /// What Prometheus' own libraries say of every process.
    pub fn process(&mut self) {
        let collector = ProcessCollector::for_self();
        for described in collector.desc() {
            let kind = if described.fq_name.ends_with("_total") { "counter" } else { "gauge" };
            self.catalogue.push(Entry {
                name: described.fq_name.clone(),
                kind,
                labels: Vec::new(),
                help: described.help.clone(),
            });
        }
        self.registry.register(Box::new(collector)).expect(CONSTANT);
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}
