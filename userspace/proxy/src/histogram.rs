//! A histogram as Prometheus reads it.

use std::fmt::Write as _;

/// Counts observations below bounds, which ascend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    longer: u64,
    sum: f64,
}

impl Histogram {
    pub(crate) fn new(bounds: Vec<f64>) -> Self {
        Histogram {
            counts: vec![0; bounds.len()],
            bounds,
            longer: 0,
            sum: 0.0,
        }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        self.sum += value;
        let at = self.bounds.iter().position(|bound| value <= *bound);
        match at.and_then(|at| self.counts.get_mut(at)) {
            Some(count) => *count += 1,
            None => self.longer += 1,
        }
    }

    /// Its samples. `labels` stand between the braces, each with a comma behind it.
    pub(crate) fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut count = 0;
        for (bound, n) in self.bounds.iter().zip(&self.counts) {
            count += n;
            let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
        }
        count += self.longer;
        let outer = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _ = writeln!(
            text,
            "{name}_bucket{{{labels}le=\"+Inf\"}} {count}\n{name}_sum{outer} {}\n{name}_count{outer} {count}",
            self.sum
        );
    }
}
