//! How long things took.

use std::time::Duration;

use super::text::Text;

/// The buckets of kube-apiserver's request durations, in seconds, for requests and for those to the store.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// Counts by bucket; the last is for what is longer than all bounds.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    pub(super) fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.buckets[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += took;
    }

    pub(super) fn render(&self, name: &str, labels: &[(&str, &str)], text: &mut Text) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (i, found) in self.buckets.iter().enumerate() {
            count += found;
            let bound = BOUNDS
                .get(i)
                .map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let labels = [labels, &[("le", &bound)]].concat();
            text.value(&bucket, &labels, count);
        }
        text.value(&format!("{name}_sum"), labels, self.sum.as_secs_f64());
        text.value(&format!("{name}_count"), labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_include_their_bounds() {
        let mut histogram = Histogram::default();
        for millis in [1, 5, 6, 100_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = Text::default();
        histogram.render("x", &[("a", "b\"")], &mut text);
        for line in [
            "x_bucket{a=\"b\\\"\",le=\"0.005\"} 2\n",
            "x_bucket{a=\"b\\\"\",le=\"0.025\"} 3\n",
            "x_bucket{a=\"b\\\"\",le=\"1\"} 3\n",
            "x_bucket{a=\"b\\\"\",le=\"60\"} 3\n",
            "x_bucket{a=\"b\\\"\",le=\"+Inf\"} 4\n",
            "x_sum{a=\"b\\\"\"} 100.012\n",
            "x_count{a=\"b\\\"\"} 4\n",
        ] {
            assert!(text.0.contains(line), "{line} in {}", text.0);
        }
    }
}
