//! Numbers in the text format that Prometheus reads (version 0.0.4). Pure.

use std::fmt::Write as _;

use podspawn_runtime::metrics::{BOUNDS, Histogram};

/// Something to say about a metric's kind.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text in the making.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// A metric with a sample for each set of labels.
    pub fn metric(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: &[(&[(&str, &str)], u64)],
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{} {value}", braces(labels));
        }
    }

    /// A histogram of seconds.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        histogram: &Histogram,
    ) {
        self.head(name, "histogram", help);
        let mut total = 0;
        let bounds = BOUNDS.iter().map(|us| seconds(*us)).chain(["+Inf".into()]);
        for (bound, count) in bounds.zip(histogram.buckets) {
            total += count;
            let labels = [labels, &[("le", bound.as_str())]].concat();
            let _ = writeln!(self.0, "{name}_bucket{} {total}", braces(&labels));
        }
        let _ = writeln!(
            self.0,
            "{name}_sum{} {}",
            braces(labels),
            seconds(histogram.sum)
        );
        let _ = writeln!(self.0, "{name}_count{} {total}", braces(labels));
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// The whole text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

fn braces(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escape = |value: &str| {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_in_the_format() {
        let mut text = Text::default();
        text.metric(
            "podspawn_pods",
            Kind::Gauge,
            "Pods.",
            &[(&[("user", "a\"b\\c\nd")], 2)],
        );
        let mut histogram = Histogram::default();
        histogram.buckets[0] = 1;
        histogram.buckets[15] = 2;
        histogram.sum = 61_000_400;
        text.histogram("x_seconds", "Y.", &[("user", "a")], &histogram);
        let text = text.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "# HELP podspawn_pods Pods.",
                "# TYPE podspawn_pods gauge",
                r#"podspawn_pods{user="a\"b\\c\nd"} 2"#,
            ]
        );
        assert_eq!(lines[5], r#"x_seconds_bucket{user="a",le="0.0005"} 1"#);
        assert_eq!(
            lines[19..],
            [
                r#"x_seconds_bucket{user="a",le="30"} 1"#,
                r#"x_seconds_bucket{user="a",le="+Inf"} 3"#,
                r#"x_seconds_sum{user="a"} 61.0004"#,
                r#"x_seconds_count{user="a"} 3"#,
            ]
        );
        assert_eq!([0, 1, 2_500_000].map(seconds), ["0", "0.000001", "2.5"]);
    }
}
