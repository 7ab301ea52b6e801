//! What is known of a pull or load, and the lines that show it. Pure.
//!
//! Events change the board; what is drawn depends on the board, the terminal's
//! size and the time, and on nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use podspawn_images::digest::Digest;
use podspawn_images::progress::LayerEvent;

use super::text::{escape, rate, size};

/// Most layers shown at once.
const LINES: usize = 8;
/// Over how long the rate is measured.
const WINDOW: Duration = Duration::from_secs(3);

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has happened to it.
    Queued,
    /// Somebody else unpacks it.
    Waiting,
    /// Bytes come or are written.
    Active,
    /// In the store, before or now.
    Finished,
}

#[derive(Clone, Debug)]
struct Layer {
    digest: Digest,
    size: u64,
    fetched: u64,
    expanded: u64,
    phase: Phase,
    samples: Samples,
}

/// How many bytes there were at times since the start, for a rate.
#[derive(Clone, Debug, Default)]
struct Samples(VecDeque<(Duration, u64)>);

impl Samples {
    fn take(&mut self, now: Duration, bytes: u64) {
        self.0.push_back((now, bytes));
        let old = |(then, _): &(Duration, u64)| now.saturating_sub(*then) >= WINDOW;
        while self.0.get(1).is_some_and(old) {
            self.0.pop_front();
        }
    }

    fn rate(&self) -> Option<String> {
        let ((t0, b0), (t1, b1)) = (self.0.front()?, self.0.back()?);
        (t1 > t0).then(|| rate(b1.saturating_sub(*b0), t1.saturating_sub(*t0)))
    }
}

/// The state of one pull or load.
#[derive(Debug, Default)]
pub(super) struct Board {
    title: String,
    layers: Vec<Layer>,
    /// Of all layers.
    samples: Samples,
}

impl Board {
    /// An image is to be fetched; forgets the one before.
    pub(super) fn begin(&mut self, title: String, layers: &[(Digest, u64)]) {
        let layer = |(digest, size): &(Digest, u64)| Layer {
            digest: digest.clone(),
            size: *size,
            fetched: 0,
            expanded: 0,
            phase: Phase::Queued,
            samples: Samples::default(),
        };
        self.title = title;
        self.layers.clear();
        for entry in layers {
            // An image may name a blob twice; it is fetched once.
            if !self.layers.iter().any(|l| l.digest == entry.0) {
                self.layers.push(layer(entry));
            }
        }
        self.samples = Samples::default();
    }

    pub(super) fn layer(&mut self, digest: &Digest, event: LayerEvent) {
        let Some(layer) = self.layers.iter_mut().find(|l| l.digest == *digest) else {
            return;
        };
        match event {
            LayerEvent::AlreadyThere => layer.phase = Phase::Finished,
            LayerEvent::Waiting => layer.phase = Phase::Waiting,
            LayerEvent::Fetched { fetched, .. } => {
                // From here on it is another thing that is measured.
                if fetched >= layer.size && layer.fetched < layer.size {
                    layer.samples = Samples::default();
                }
                layer.fetched = layer.fetched.max(fetched);
                layer.phase = Phase::Active;
            }
            LayerEvent::Unpacking { expanded } => {
                layer.expanded = expanded;
                layer.phase = Phase::Active;
            }
            LayerEvent::Done => {
                // What another process fetched is not of this one's rate.
                if layer.phase == Phase::Active {
                    layer.fetched = layer.size;
                }
                layer.phase = Phase::Finished;
            }
            _ => {}
        }
    }

    /// Size of a layer in bytes.
    pub(super) fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.layers
            .iter()
            .find(|l| l.digest == *digest)
            .map(|l| l.size)
    }

    /// Takes note of what has come by now, for the rate.
    pub(super) fn sample(&mut self, now: Duration) {
        let sum = self
            .layers
            .iter()
            .map(|l| l.fetched)
            .fold(0, u64::saturating_add);
        self.samples.take(now, sum);
        for layer in self.layers.iter_mut().filter(|l| l.phase == Phase::Active) {
            // One that is there whole is written out: that is what it is waited for.
            let bytes = if layer.fetched < layer.size {
                layer.fetched
            } else {
                layer.expanded
            };
            layer.samples.take(now, bytes);
        }
    }

    /// What a terminal of this size shows: lines without line breaks, none
    /// wider than it, and at most as many as fit.
    pub(super) fn frame(&self, columns: usize, rows: usize) -> Vec<String> {
        if self.title.is_empty() {
            return Vec::new();
        }
        let active = |l: &&Layer| matches!(l.phase, Phase::Active | Phase::Waiting);
        let room = rows.saturating_sub(2).min(LINES);
        let lines = self
            .layers
            .iter()
            .filter(active)
            .take(room)
            .map(|l| l.line(columns));
        let mut frame: Vec<String> = std::iter::once(self.summary()).chain(lines).collect();
        for line in &mut frame {
            cut(line, columns.saturating_sub(1));
        }
        frame
    }

    fn summary(&self) -> String {
        let finished = self
            .layers
            .iter()
            .filter(|l| l.phase == Phase::Finished)
            .count();
        let parts = [
            escape(&self.title).into_owned(),
            format!("{finished} of {}", layers(self.layers.len())),
            format!("{} of {}", size(self.fetched()), size(self.total())),
        ];
        let mut line = parts.join("  ");
        if let Some(rate) = self.samples.rate() {
            line.push_str("  ");
            line.push_str(&rate);
        }
        line
    }

    fn fetched(&self) -> u64 {
        // A layer that was there counts as fetched, so that the sums meet.
        let of = |l: &Layer| {
            if l.phase == Phase::Finished {
                l.size
            } else {
                l.fetched
            }
        };
        self.layers.iter().map(of).fold(0, u64::saturating_add)
    }

    fn total(&self) -> u64 {
        self.layers
            .iter()
            .map(|l| l.size)
            .fold(0, u64::saturating_add)
    }
}

impl Layer {
    fn line(&self, columns: usize) -> String {
        let name = short(&self.digest);
        if self.phase == Phase::Waiting {
            return format!("  {name}  waiting for another process that fetches it");
        }
        if self.fetched >= self.size {
            let rate = self
                .samples
                .rate()
                .map(|r| format!(", {r}"))
                .unwrap_or_default();
            return format!("  {name}  unpacking, {} written{rate}", size(self.expanded));
        }
        let rate = self
            .samples
            .rate()
            .map(|r| format!("  {r}"))
            .unwrap_or_default();
        let numbers = format!("{} of {}{rate}", size(self.fetched), size(self.size));
        let room = columns
            .saturating_sub(name.len() + numbers.len() + 10)
            .min(40);
        if room < 10 {
            return format!("  {name}  {numbers}");
        }
        let full = u128::from(self.fetched) * room as u128 / u128::from(self.size.max(1));
        let bar: String = (0..room as u128)
            .map(|n| if n < full { '=' } else { ' ' })
            .collect();
        format!("  {name}  [{bar}]  {numbers}")
    }
}

/// The first digits of a digest, as lists show them.
pub(super) fn short(digest: &Digest) -> &str {
    digest.hex().get(..12).unwrap_or(digest.hex())
}

/// `1 layer`, `7 layers`.
pub(super) fn layers(count: usize) -> String {
    format!("{count} layer{}", if count == 1 { "" } else { "s" })
}

/// Cuts to so many characters.
fn cut(line: &mut String, columns: usize) {
    if let Some((end, _)) = line.char_indices().nth(columns) {
        line.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u64) -> Digest {
        format!("sha256:{n:064x}").parse().unwrap()
    }

    fn board(sizes: &[u64]) -> Board {
        let layers: Vec<_> = (1..).map(digest).zip(sizes.iter().copied()).collect();
        let mut board = Board::default();
        board.begin("docker.io/library/x:1".into(), &layers);
        board
    }

    #[test]
    fn a_frame_shows_what_is_under_way() {
        let mut board = board(&[1000, 2_000_000, 3_000_000, 4_000_000]);
        board.layer(&digest(1), LayerEvent::AlreadyThere);
        board.layer(
            &digest(2),
            LayerEvent::Fetched {
                fetched: 500_000,
                total: 2_000_000,
            },
        );
        board.layer(
            &digest(3),
            LayerEvent::Fetched {
                fetched: 3_000_000,
                total: 3_000_000,
            },
        );
        board.layer(
            &digest(3),
            LayerEvent::Unpacking {
                expanded: 9_000_000,
            },
        );
        assert_eq!(
            board.frame(70, 24),
            [
                "docker.io/library/x:1  1 of 4 layers  3.5 MB of 9.0 MB",
                "  000000000000  [=======                       ]  500.0 kB of 2.0 MB",
                "  000000000000  unpacking, 9.0 MB written",
            ]
        );
        board.layer(&digest(4), LayerEvent::Waiting);
        assert_eq!(
            board.frame(80, 24)[3],
            "  000000000000  waiting for another process that fetches it"
        );
        assert_eq!(board.frame(30, 24)[1], "  000000000000  500.0 kB of 2");
        assert_eq!(board.frame(70, 3).len(), 2);
    }

    #[test]
    fn nothing_is_shown_before_the_layers_are_known() {
        assert_eq!(Board::default().frame(80, 24), [""; 0]);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut board = board(&[100_000_000]);
        let mut at = |seconds: u64, fetched: u64| {
            board.layer(
                &digest(1),
                LayerEvent::Fetched {
                    fetched,
                    total: 100_000_000,
                },
            );
            board.sample(Duration::from_secs(seconds));
            board.frame(200, 24).remove(0)
        };
        assert!(at(0, 0).ends_with("0 B of 100.0 MB"));
        assert!(at(1, 10_000_000).ends_with("  10.0 MB/s"));
        at(5, 10_000_000);
        assert!(at(8, 10_000_000).ends_with("  0 B/s"));
    }

    #[test]
    fn each_layer_has_a_rate_of_its_own() {
        let mut board = board(&[2_000_000, 1_000_000]);
        let fetched = |fetched, total| LayerEvent::Fetched { fetched, total };
        board.layer(&digest(1), fetched(0, 2_000_000));
        board.layer(&digest(2), fetched(0, 1_000_000));
        board.sample(Duration::ZERO);
        board.layer(&digest(1), fetched(1_000_000, 2_000_000));
        board.layer(&digest(2), fetched(1_000_000, 1_000_000));
        board.sample(Duration::from_secs(1));
        board.layer(
            &digest(2),
            LayerEvent::Unpacking {
                expanded: 5_000_000,
            },
        );
        board.sample(Duration::from_secs(2));
        let frame = board.frame(200, 24);
        assert!(
            frame[1].ends_with("1.0 MB of 2.0 MB  500.0 kB/s"),
            "{frame:?}"
        );
        assert!(
            frame[2].ends_with("unpacking, 5.0 MB written, 5.0 MB/s"),
            "{frame:?}"
        );
    }

    #[test]
    fn a_blob_named_twice_is_one_layer() {
        let mut board = Board::default();
        board.begin("x".into(), &[(digest(1), 5), (digest(1), 5)]);
        assert_eq!(board.frame(80, 24), ["x  0 of 1 layer  0 B of 5 B"]);
    }

    proptest! {
        #[test]
        fn a_frame_fits_the_terminal(
            columns in 0usize..200, rows in 0usize..50,
            fetched in prop::collection::vec(any::<u64>(), 0..30), sizes in any::<u64>(),
        ) {
            let mut board = board(&vec![sizes; fetched.len()]);
            for (n, fetched) in (1..).zip(fetched) {
                board.layer(&digest(n), LayerEvent::Fetched { fetched, total: sizes });
            }
            board.sample(Duration::from_secs(1));
            board.sample(Duration::from_secs(2));
            let frame = board.frame(columns, rows);
            prop_assert!(frame.len() < rows.max(2));
            prop_assert!(frame.iter().all(|l| l.chars().count() < columns.max(1)));
        }
    }
}
