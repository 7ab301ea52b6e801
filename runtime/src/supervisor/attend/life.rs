//! When a pod ends. Pure: time and events are told, a decision comes back.
//!
//! What holds true: while a session is attached, only a stop, a signal, the end
//! of the container or the maximal lifetime end the pod; and what [`Life::next`]
//! says to wait for is always ahead.
//!
//! Moments are of `CLOCK_MONOTONIC`. Setting the clock changes nothing; and a host
//! that was suspended owes its users the rest of the grace period when it wakes,
//! because nobody could reconnect meanwhile, which is why it is not
//! `CLOCK_BOOTTIME`.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::pod::Mode;

/// What was agreed about a pod's end when it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What happens once the last session has gone.
    pub mode: Mode,
    /// How long nobody may be there, in mode `grace-period`.
    pub grace_period: Duration,
    /// How long the pod may be there at most, but in mode `persistent`.
    pub max_lifetime: Option<Duration>,
}

/// Why a pod ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody came back.
    Idle(Mode),
    /// It has been there long enough.
    Lifetime(Duration),
    /// Somebody asked for it.
    Stopped {
        /// At once.
        now: bool,
    },
    /// The supervisor got this signal.
    Signal(Signal),
    /// Something of the pod's that it cannot be without has ended.
    Lost(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle(Mode::DestroyOnDisconnect) => f.write_str("its last session has ended"),
            Self::Idle(_) => f.write_str("no session within the grace period"),
            Self::Lifetime(most) => {
                write!(f, "it reached its maximal lifetime of {}", span(*most))
            }
            Self::Stopped { now: false } => f.write_str("it was stopped"),
            Self::Stopped { now: true } => f.write_str("it was stopped at once"),
            Self::Signal(signal) => write!(f, "got {signal}"),
            Self::Lost(what) => write!(f, "{what} is gone"),
        }
    }
}

/// A duration as one would write it.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let text: String = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if text.is_empty() {
        return "0s".into();
    }
    text
}

impl Reason {
    /// Whether programs get no time to end by themselves.
    #[must_use]
    pub fn is_hasty(&self) -> bool {
        matches!(self, Self::Stopped { now: true })
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something happens or that moment comes.
    Wait(Option<Instant>),
    /// End, unless somebody is about to come in.
    Close(Reason),
    /// End, whoever is there.
    End(Reason),
}

/// How long to wait before another look when somebody was about to come in:
/// doubled each time, for one that does not come in after all.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN_MOST: Duration = Duration::from_secs(2);

/// The life of one pod.
#[derive(Clone, Debug)]
pub struct Life {
    terms: Terms,
    born: Instant,
    sessions: usize,
    /// How many there were, ever.
    ever: u64,
    /// Since when nobody is there; meaningless while somebody is.
    empty_since: Instant,
    ordered: Option<Reason>,
    /// The door could not be closed: not before this moment again.
    again: Option<(Instant, Duration)>,
}

impl Life {
    /// A pod that begins now, with nobody in it.
    #[must_use]
    pub fn new(terms: Terms, now: Instant) -> Self {
        Self {
            terms,
            born: now,
            sessions: 0,
            ever: 0,
            empty_since: now,
            ordered: None,
            again: None,
        }
    }

    /// A session is attached: which number it is among all there were.
    pub fn joined(&mut self) -> u64 {
        self.sessions += 1;
        self.ever += 1;
        self.again = None;
        self.ever
    }

    /// A session has gone.
    pub fn left(&mut self, now: Instant) {
        self.sessions = self.sessions.saturating_sub(1);
        self.empty_since = now;
    }

    /// The pod must end for this reason; the first one stays.
    pub fn order(&mut self, reason: Reason) {
        self.ordered.get_or_insert(reason);
    }

    /// Somebody was at the door when it was to be closed.
    pub fn disturbed(&mut self, now: Instant) {
        let pause = self
            .again
            .map_or(LOOK_AGAIN, |(_, last)| (last * 2).min(LOOK_AGAIN_MOST));
        self.again = Some((now + pause, pause));
    }

    /// How many are attached.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// What was agreed.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How long the pod has been there.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// In how long the pod ends if nobody comes or goes.
    #[must_use]
    pub fn expires_in(&self, now: Instant) -> Option<Duration> {
        let end = self.idle_end().into_iter().chain(self.lifetime_end()).min();
        end.map(|end| end.saturating_duration_since(now))
    }

    /// What to do now.
    #[must_use]
    pub fn next(&self, now: Instant) -> Next {
        if let Some(reason) = &self.ordered {
            return Next::End(reason.clone());
        }
        let lifetime = self.lifetime_end();
        if lifetime.is_some_and(|end| end <= now) {
            return Next::End(Reason::Lifetime(
                self.terms.max_lifetime.unwrap_or_default(),
            ));
        }
        let idle = self
            .idle_end()
            .map(|end| self.again.map_or(end, |(again, _)| again.max(end)));
        if idle.is_some_and(|end| end <= now) {
            return Next::Close(Reason::Idle(self.terms.mode));
        }
        Next::Wait(idle.into_iter().chain(lifetime).min())
    }

    /// `None`: somebody is there, or it never ends for want of sessions.
    fn idle_end(&self) -> Option<Instant> {
        match self.terms.mode {
            _ if self.sessions > 0 => None,
            Mode::GracePeriod => self.empty_since.checked_add(self.terms.grace_period),
            Mode::DestroyOnDisconnect => Some(self.empty_since),
            Mode::Persistent => None,
        }
    }

    fn lifetime_end(&self) -> Option<Instant> {
        match self.terms.mode {
            Mode::Persistent => None,
            _ => self.born.checked_add(self.terms.max_lifetime?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn life(mode: Mode, max_lifetime: Option<u32>) -> (Life, Instant) {
        let now = Instant::now();
        let terms = Terms {
            mode,
            grace_period: SECOND * 60,
            max_lifetime: max_lifetime.map(|s| SECOND * s),
        };
        (Life::new(terms, now), now)
    }

    #[test]
    fn the_grace_period_begins_with_the_last_sessions_end() {
        let (mut life, start) = life(Mode::GracePeriod, None);
        life.joined();
        life.joined();
        assert_eq!(life.next(start + SECOND * 1000), Next::Wait(None));
        life.left(start + SECOND * 1000);
        assert_eq!(life.next(start + SECOND * 2000), Next::Wait(None));
        life.left(start + SECOND * 2000);
        let end = start + SECOND * 2060;
        assert_eq!(life.next(end - SECOND), Next::Wait(Some(end)));
        assert_eq!(life.next(end), Next::Close(Reason::Idle(Mode::GracePeriod)));
    }

    #[test]
    fn one_who_comes_in_the_last_moment_cancels_the_end() {
        let (mut life, start) = life(Mode::GracePeriod, None);
        let end = start + SECOND * 60;
        assert!(matches!(life.next(end), Next::Close(_)));
        life.disturbed(end);
        let Next::Wait(Some(again)) = life.next(end) else {
            panic!("{:?}", life.next(end))
        };
        assert!(again > end);
        life.joined();
        assert_eq!(life.next(end + SECOND * 500), Next::Wait(None));
        life.left(end + SECOND * 500);
        assert_eq!(
            life.next(end + SECOND * 500),
            Next::Wait(Some(end + SECOND * 560))
        );
    }

    #[test]
    fn one_who_stands_at_the_door_is_asked_less_and_less_often() {
        let (mut life, start) = life(Mode::DestroyOnDisconnect, None);
        let mut now = start;
        let mut looks = 0;
        while now < start + SECOND * 60 {
            match life.next(now) {
                Next::Close(_) => {
                    looks += 1;
                    life.disturbed(now);
                }
                Next::Wait(Some(then)) => now = then,
                other => panic!("{other:?}"),
            }
        }
        assert!((20..60).contains(&looks), "{looks}");
    }

    #[test]
    fn destroy_on_disconnect_does_not_wait() {
        let (mut life, start) = life(Mode::DestroyOnDisconnect, Some(100));
        life.joined();
        assert_eq!(
            life.next(start + SECOND),
            Next::Wait(Some(start + SECOND * 100))
        );
        life.left(start + SECOND);
        assert!(matches!(life.next(start + SECOND), Next::Close(_)));
    }

    #[test]
    fn the_lifetime_ends_a_pod_with_sessions_too() {
        let (mut life, start) = life(Mode::GracePeriod, Some(100));
        life.joined();
        assert_eq!(life.expires_in(start + SECOND), Some(SECOND * 99));
        assert_eq!(
            life.next(start + SECOND * 100),
            Next::End(Reason::Lifetime(SECOND * 100))
        );
    }

    #[test]
    fn the_longest_duration_is_for_ever() {
        let terms = Terms {
            mode: Mode::GracePeriod,
            grace_period: Duration::MAX,
            max_lifetime: Some(Duration::MAX),
        };
        let now = Instant::now();
        assert_eq!(Life::new(terms, now).next(now), Next::Wait(None));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Joined,
        Left,
        Disturbed,
        Stopped,
        Later(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => Just(Event::Joined),
            4 => Just(Event::Left),
            1 => Just(Event::Disturbed),
            1 => Just(Event::Stopped),
            6 => (0u64..200_000).prop_map(Event::Later),
        ];
        proptest::collection::vec(event, 0..60)
    }

    fn modes() -> impl Strategy<Value = Mode> {
        prop_oneof![
            Just(Mode::GracePeriod),
            Just(Mode::DestroyOnDisconnect),
            Just(Mode::Persistent)
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_put_out_without_cause(mode in modes(), max in proptest::option::of(0u32..500), events in events()) {
            let (mut life, start) = life(mode, max);
            let mut now = start;
            let mut last_seen = start;
            let mut stopped = false;
            for event in events {
                match event {
                    Event::Joined => {
                        life.joined();
                    }
                    Event::Left => if life.sessions() > 0 { life.left(now); last_seen = now },
                    Event::Disturbed => life.disturbed(now),
                    Event::Stopped => { life.order(Reason::Stopped { now: false }); stopped = true },
                    Event::Later(ms) => now += Duration::from_millis(ms),
                }
                match life.next(now) {
                    Next::Wait(None) => {
                        prop_assert!(!stopped);
                        prop_assert!(life.sessions() > 0 || mode == Mode::Persistent);
                    }
                    Next::Wait(Some(then)) => {
                        prop_assert!(!stopped && then > now);
                        prop_assert!(!matches!(life.next(then), Next::Wait(_)), "waiting ends");
                    }
                    Next::Close(_) => {
                        prop_assert!(!stopped && life.sessions() == 0 && mode != Mode::Persistent);
                        let quiet = now - last_seen;
                        prop_assert!(mode == Mode::DestroyOnDisconnect || quiet >= SECOND * 60);
                    }
                    Next::End(Reason::Stopped { .. }) => prop_assert!(stopped),
                    Next::End(Reason::Lifetime(_)) => {
                        prop_assert!(mode != Mode::Persistent);
                        prop_assert!(now - start >= SECOND * max.unwrap());
                    }
                    Next::End(other) => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
