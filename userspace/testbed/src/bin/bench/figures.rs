//! What was measured, and what it must reach.

use serde::Serialize;

/// How figures are printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// One measured value.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figure {
    pub(crate) bench: String,
    /// What was measured, with its size: `socket/10000`.
    pub(crate) case: String,
    pub(crate) metric: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What `ratio` compares with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<&'static str>,
    /// Median of the runs' ratios of value to the peer's value in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// Between these lies the middle half of the runs' ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_spread: Option<(f64, f64)>,
    pub(crate) runs: usize,
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// The ratio, at least.
    RatioMin(f64),
    /// The value, less than.
    ValueBelow(f64),
}

/// Prints figures as they come and remembers which missed their bound.
pub(crate) struct Figures {
    bench: String,
    format: Format,
    missed: Vec<String>,
    header: bool,
}

impl Figures {
    pub(crate) fn new(bench: &str, format: Format) -> Self {
        Self {
            bench: bench.to_owned(),
            format,
            missed: Vec::new(),
            header: false,
        }
    }

    /// Sentences that name the figures which missed.
    pub(crate) fn missed(&self) -> &[String] {
        &self.missed
    }

    pub(crate) fn miss(&mut self, sentence: String) {
        self.missed.push(sentence);
    }

    pub(crate) fn add(&mut self, mut figure: Figure, bound: Option<Bound>) {
        figure.bench.clone_from(&self.bench);
        self.print(&figure, bound);
        let name = format!("{} {}", figure.case, figure.metric);
        match bound {
            Some(Bound::RatioMin(least)) if figure.ratio.is_none_or(|ratio| ratio < least) => {
                self.miss(format!(
                    "{name}: {:.3} of {}, must be at least {least}",
                    figure.ratio.unwrap_or(0.0),
                    figure.peer.unwrap_or("its peer")
                ));
            }
            Some(Bound::ValueBelow(most)) if figure.value.is_nan() || figure.value >= most => {
                self.miss(format!(
                    "{name}: {:.3} {}, must be below {most}",
                    figure.value, figure.unit
                ));
            }
            Some(Bound::RatioMin(_) | Bound::ValueBelow(_)) | None => {}
        }
    }

    fn print(&mut self, figure: &Figure, bound: Option<Bound>) {
        if self.format == Format::Json {
            // The type has nothing that JSON cannot say; an odd number would be null.
            println!("{}", serde_json::to_string(figure).unwrap_or_default());
            return;
        }
        if !self.header {
            self.header = true;
            println!(
                "{:<24} {:<22} {:>12} {:<7} {:>6} {:<12} {:<15} {:>5}  MUST BE",
                "CASE", "METRIC", "VALUE", "UNIT", "RATIO", " MIDDLE HALF", "OF", "RUNS"
            );
        }
        let ratio = figure
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let spread = figure
            .ratio_spread
            .map_or_else(String::new, |(low, high)| format!("{low:.2} to {high:.2}"));
        let bound = match bound {
            Some(Bound::RatioMin(least)) => format!("ratio >= {least}"),
            Some(Bound::ValueBelow(most)) => format!("< {most}"),
            None => String::new(),
        };
        let decimals = if figure.value >= 1000.0 { 0 } else { 2 };
        println!(
            "{:<24} {:<22} {:>12.decimals$} {:<7} {ratio:>6}  {spread:<12}{:<15} {:>5}  {bound}",
            figure.case,
            figure.metric,
            figure.value,
            figure.unit,
            figure.peer.unwrap_or(""),
            figure.runs
        );
    }
}

/// The middle one; zero of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of all stays at or below; zero of none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_misses_its_bound_is_named() {
        let mut figures = Figures::new("datapath", Format::Json);
        let figure = |ratio| Figure {
            case: "tc/1".to_owned(),
            metric: "crr_per_s",
            value: 5.0,
            ratio,
            peer: Some("direct"),
            ..Figure::default()
        };
        figures.add(figure(Some(0.95)), Some(Bound::RatioMin(0.9)));
        figures.add(figure(None), None);
        figures.add(figure(None), Some(Bound::ValueBelow(10.0)));
        assert!(figures.missed().is_empty());
        figures.add(figure(Some(0.85)), Some(Bound::RatioMin(0.9)));
        figures.add(figure(None), Some(Bound::RatioMin(0.9)));
        figures.add(figure(None), Some(Bound::ValueBelow(5.0)));
        assert_eq!(figures.missed().len(), 3);
        assert!(figures.missed()[0].starts_with("tc/1 crr_per_s: 0.850 of direct"));
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [3.0, 1.0, 2.0];
        assert_eq!(
            (median(&values), quantile(&values, 0.99), median(&[])),
            (2.0, 3.0, 0.0)
        );
    }
}
