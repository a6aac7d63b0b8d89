//! Counters, gauges and histograms under CoreDNS's names, and their text for Prometheus.

pub(crate) mod rest_client;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A family keeps at most this many series; what would be more is counted under `other`.
const SERIES_MAX: usize = 20_000;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations below bounds, which ascend.
    Histogram(&'static [f64]),
}

/// CoreDNS's bounds for durations, in seconds: 0.25 ms doubling to 8.192 s.
pub const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    2.048, 4.096, 8.192,
];

/// CoreDNS's bounds for sizes, in octets.
pub const OCTETS: &[f64] = &[
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3,
];

/// All families of a process. They outlive a reload of the configuration.
#[derive(Debug, Default)]
pub struct Registry {
    families: Mutex<BTreeMap<&'static str, Arc<Family>>>,
}

impl Registry {
    /// The family of this name, made if there is none.
    pub fn family(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
    ) -> Arc<Family> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(families.entry(name).or_insert_with(|| {
            Arc::new(Family {
                name,
                help,
                kind,
                labels,
                series: RwLock::default(),
            })
        }))
    }

    /// As [`Registry::render`], with what the kernel tells of this process.
    #[must_use]
    pub fn render_with_process(&self) -> String {
        let mut text = self.render();
        text += &net::process_metrics();
        text
    }

    /// The text of all families (Prometheus exposition format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        let families: Vec<Arc<Family>> = self
            .families
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(Arc::clone)
            .collect();
        let mut text = String::new();
        for family in families {
            family.render(&mut text);
        }
        text
    }
}

/// Series of one name that differ in their labels.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    /// By label values joined with 0xff, which no label holds.
    series: RwLock<HashMap<String, Arc<Series>>>,
}

impl Family {
    /// The series with these label values, in the order of the family's labels. Keep it where it is needed often.
    pub fn with(&self, values: &[&str]) -> Arc<Series> {
        let key = values.join("\u{ff}");
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = series.get(&key) {
            return Arc::clone(found);
        }
        drop(series);
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let key = if series.len() < SERIES_MAX {
            key
        } else {
            vec!["other"; self.labels.len()].join("\u{ff}")
        };
        Arc::clone(
            series
                .entry(key)
                .or_insert_with(|| Arc::new(Series::new(self.kind))),
        )
    }

    /// Forgets all series, as when what they speak of is gone.
    pub fn clear(&self) {
        self.series
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn render(&self, text: &mut String) {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut series: Vec<(&String, &Arc<Series>)> = series.iter().collect();
        series.sort_by_key(|(key, _)| *key);
        if series.is_empty() {
            return;
        }
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let _ = writeln!(text, "# HELP {} {}", self.name, self.help);
        let _ = writeln!(text, "# TYPE {} {kind}", self.name);
        for (key, series) in series {
            let labels: Vec<String> = self
                .labels
                .iter()
                .zip(key.split('\u{ff}'))
                .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
                .collect();
            series.render(text, self.name, &labels.join(","), self.kind);
        }
    }
}

/// One series. Cheap to touch from many threads.
#[derive(Debug)]
pub struct Series {
    /// A gauge's or histogram sum's bits as f64; a counter's whole number.
    value: AtomicU64,
    bounds: &'static [f64],
    /// Observations at or below each bound and above the one before, and last those above all.
    buckets: Box<[AtomicU64]>,
}

impl Series {
    fn new(kind: Kind) -> Self {
        let bounds = match kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let buckets = match kind {
            Kind::Histogram(_) => (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            Kind::Counter | Kind::Gauge => Box::default(),
        };
        Self {
            value: AtomicU64::new(0),
            bounds,
            buckets,
        }
    }

    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several more.
    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    /// A counter's value.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Sets a gauge.
    pub fn set(&self, value: f64) {
        self.value.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Counts an observation in a histogram.
    pub fn observe(&self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self
            .value
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn render(&self, text: &mut String, name: &str, labels: &str, kind: Kind) {
        let braced = |labels: &str| match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let value = self.value.load(Ordering::Relaxed);
        let _ = match kind {
            Kind::Counter => writeln!(text, "{name}{} {value}", braced(labels)),
            Kind::Gauge => writeln!(text, "{name}{} {}", braced(labels), f64::from_bits(value)),
            Kind::Histogram(bounds) => {
                let comma = if labels.is_empty() { "" } else { "," };
                let mut total = 0;
                let above = std::iter::once("+Inf".to_owned());
                let bounds = bounds.iter().map(ToString::to_string).chain(above);
                for (bound, bucket) in bounds.zip(&self.buckets) {
                    total += bucket.load(Ordering::Relaxed);
                    let _ = writeln!(
                        text,
                        "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"
                    );
                }
                let _ = writeln!(
                    text,
                    "{name}_sum{} {}",
                    braced(labels),
                    f64::from_bits(value)
                );
                writeln!(text, "{name}_count{} {total}", braced(labels))
            }
        };
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_each_kind() {
        let registry = Registry::default();
        let counter = registry.family("c_total", "A counter.", Kind::Counter, &["zone"]);
        counter.with(&["a\"b."]).add(3);
        registry
            .family("g", "A gauge.", Kind::Gauge, &[])
            .with(&[])
            .set(1.5);
        let histogram = registry.family("h", "A histogram.", Kind::Histogram(&[1.0, 2.0]), &["x"]);
        let series = histogram.with(&["y"]);
        for value in [0.5, 1.0, 1.5, 9.0] {
            series.observe(value);
        }
        assert_eq!(
            registry.render(),
            "# HELP c_total A counter.\n# TYPE c_total counter\nc_total{zone=\"a\\\"b.\"} 3\n\
             # HELP g A gauge.\n# TYPE g gauge\ng 1.5\n\
             # HELP h A histogram.\n# TYPE h histogram\nh_bucket{x=\"y\",le=\"1\"} 2\n\
             h_bucket{x=\"y\",le=\"2\"} 3\nh_bucket{x=\"y\",le=\"+Inf\"} 4\nh_sum{x=\"y\"} 12\nh_count{x=\"y\"} 4\n"
        );
    }

    #[test]
    fn series_are_bounded() {
        let registry = Registry::default();
        let family = registry.family("n_total", "Names.", Kind::Counter, &["name"]);
        for index in 0..SERIES_MAX + 10 {
            family.with(&[&index.to_string()]).increment();
        }
        assert_eq!(family.with(&["other"]).count(), 10);
    }
}
