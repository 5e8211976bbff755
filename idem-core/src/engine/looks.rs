//! One look at a record at a time.
//!
//! Owns who of a process's requests asks the backend about a key. One does. Those who come meanwhile form a round, and
//! when the first has its answer, one of them asks for the whole round: a look that began after a request came is as good
//! as that request's own. So ten thousand duplicates cost the backend two looks, and share the bytes of one answer.
//!
//! Does not own what is asked, nor what the answer means to each.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::key::ByRecord;
use crate::{BackendError, Record, RecordKey};

/// Locks that the keys are spread over, so that requests with different keys seldom meet.
const SHARDS: usize = 64;

/// The looks that are on their way.
pub(super) struct Looks {
    shards: Vec<Mutex<Shard>>,
}

type Shard = ByRecord<KeyState>;

/// What a look came to, for those who share it.
type LookResult = Result<Record, BackendError>;

/// One key that is looked at.
#[derive(Default)]
struct KeyState {
    /// Whether somebody asks. Between two who do, nobody does.
    is_asking: bool,
    /// Who gets the answer besides the one who asks.
    current: Option<Round>,
    /// Who came since then.
    next: Option<Round>,
}

/// Those who share one look.
struct Round {
    members: usize,
    shared: Arc<SharedAnswer>,
}

/// Where a round learns of its answer, and one of its members that it is to ask.
#[derive(Default)]
struct SharedAnswer {
    answer: OnceLock<LookResult>,
    /// Wakes one for a turn, and all for the answer.
    notify: Notify,
}

/// How a request comes to its answer.
pub(super) enum Role {
    /// It asks, for itself alone.
    Turn(Turn),
    /// Somebody else does, or it is asked to later.
    Member(Member),
}

/// What a member of a round gets.
pub(super) enum Wakeup {
    /// It asks for the round.
    Turn(Turn),
    /// The answer of the one who asked.
    Answer(LookResult),
}

/// The right to ask. Dropped without an answer, it goes to another member of the round, or to the next round.
pub(super) struct Turn {
    looks: Arc<Looks>,
    key: RecordKey,
    has_ended: bool,
}

/// A share in the next look.
pub(super) struct Member {
    looks: Arc<Looks>,
    key: RecordKey,
    shared: Arc<SharedAnswer>,
    /// Whether it is not counted any more: it asks, or has its answer.
    has_left: bool,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looks").finish_non_exhaustive()
    }
}

impl Looks {
    /// Comes to look at the record under `key`.
    pub(super) fn join(self: &Arc<Self>, key: &RecordKey) -> Role {
        let (looks, key) = (self.clone(), key.clone());
        let mut states = self.lock(&key);
        let state = match states.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(KeyState {
                    is_asking: true,
                    ..KeyState::default()
                });
                return Role::Turn(Turn::new(looks, key));
            }
            Entry::Occupied(state) => state.into_mut(),
        };
        let round = state.next.get_or_insert_with(|| Round {
            members: 0,
            shared: Arc::default(),
        });
        round.members += 1;
        let shared = round.shared.clone();
        Role::Member(Member {
            looks,
            key,
            shared,
            has_left: false,
        })
    }

    fn lock(&self, key: &RecordKey) -> MutexGuard<'_, Shard> {
        // No change of a state can be seen half-done.
        self.shards[key.shard(SHARDS)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the current look at `key`, and calls on one of the next round.
fn move_on(states: &mut Shard, key: &RecordKey) {
    let Entry::Occupied(mut state) = states.entry(key.clone()) else {
        return;
    };
    match state.get_mut().next.take() {
        Some(round) => {
            round.shared.notify.notify_one();
            *state.get_mut() = KeyState {
                current: Some(round),
                ..KeyState::default()
            };
        }
        None => {
            state.remove();
        }
    }
}

impl Turn {
    fn new(looks: Arc<Looks>, key: RecordKey) -> Self {
        let has_ended = false;
        Self { looks, key, has_ended }
    }

    /// Lets the next round ask. Nobody else shares this look.
    pub(super) fn end(mut self) {
        self.has_ended = true;
        move_on(&mut self.looks.lock(&self.key), &self.key);
    }

    /// Tells the others of the round what it `said`, and lets the next round ask.
    pub(super) fn tell(mut self, answer: LookResult) {
        self.has_ended = true;
        let mut states = self.looks.lock(&self.key);
        let round = states.get_mut(&self.key).and_then(|state| state.current.take());
        move_on(&mut states, &self.key);
        drop(states);
        if let Some(round) = round {
            let _ = round.shared.answer.set(answer);
            round.shared.notify.notify_waiters();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut states = self.looks.lock(&self.key);
        let Some(state) = states.get_mut(&self.key) else { return };
        match &state.current {
            Some(round) if round.members > 0 => {
                state.is_asking = false;
                round.shared.notify.notify_one();
            }
            _ => move_on(&mut states, &self.key),
        }
    }
}

impl Member {
    /// Waits for the answer, or to be the one who asks.
    pub(super) async fn wait(mut self) -> Wakeup {
        let shared = self.shared.clone();
        let notified = shared.notify.notified();
        if shared.answer.get().is_none() {
            notified.await;
        }
        self.has_left = true;
        if let Some(answer) = shared.answer.get() {
            return Wakeup::Answer(answer.clone());
        }
        let mut states = self.looks.lock(&self.key);
        if let Some(state) = states.get_mut(&self.key) {
            state.is_asking = true;
            if let Some(round) = &mut state.current {
                round.members = round.members.saturating_sub(1);
            }
        }
        drop(states);
        Wakeup::Turn(Turn::new(self.looks.clone(), self.key.clone()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        let mut states = self.looks.lock(&self.key);
        let Some(state) = states.get_mut(&self.key) else { return };
        let is_mine = |round: &&mut Round| Arc::ptr_eq(&round.shared, &self.shared);
        if let Some(round) = state.current.as_mut().filter(is_mine) {
            round.members = round.members.saturating_sub(1);
            // Called upon to ask, and gone before it did.
            if round.members == 0 && !state.is_asking {
                move_on(&mut states, &self.key);
            }
        } else if let Some(round) = state.next.as_mut().filter(is_mine) {
            round.members = round.members.saturating_sub(1);
            if round.members == 0 {
                state.next = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{BackendErrorKind, Claim, ClaimPolicy, Fingerprint, IdempotencyKey, Scope};

    fn key() -> RecordKey {
        RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&1)).expect("a valid key")
    }

    fn record() -> Record {
        Record::Claimed {
            claim: Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(1))),
            remaining: Duration::from_secs(1),
        }
    }

    fn turn(role: Role) -> Turn {
        match role {
            Role::Turn(turn) => turn,
            Role::Member(_) => panic!("somebody else asks"),
        }
    }

    fn member(role: Role) -> Member {
        match role {
            Role::Member(member) => member,
            Role::Turn(_) => panic!("nobody else asks"),
        }
    }

    fn is_empty(looks: &Looks) -> bool {
        looks
            .shards
            .iter()
            .all(|shard| shard.lock().is_ok_and(|states| states.is_empty()))
    }

    #[test]
    fn who_comes_during_a_look_shares_the_next_one() {
        let (looks, key) = (Arc::<Looks>::default(), key());
        let first = turn(looks.join(&key));
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(member(looks.join(&key)).wait())).collect();
        for waiting in &mut waiting {
            assert!(waiting.as_mut().now_or_never().is_none());
        }

        first.end();

        let mut news: Vec<_> = waiting
            .iter_mut()
            .map(|waiting| waiting.as_mut().now_or_never())
            .collect();
        let turns = news.iter().flatten().count();
        assert_eq!(turns, 1, "one of them asks");
        let asks = news.iter().position(Option::is_some).expect("one of them asks");
        let late = member(looks.join(&key));
        let Some(Wakeup::Turn(second)) = news.remove(asks) else {
            panic!("it was told before anybody asked");
        };
        drop(waiting.remove(asks));
        second.tell(Ok(record()));
        for waiting in waiting {
            assert!(matches!(waiting.now_or_never(), Some(Wakeup::Answer(Ok(_)))));
        }
        assert!(
            matches!(late.wait().now_or_never(), Some(Wakeup::Turn(_))),
            "it came too late for that look"
        );
        assert!(is_empty(&looks));
    }

    #[test]
    fn a_turn_that_is_dropped_goes_to_another_one() {
        let (looks, key) = (Arc::<Looks>::default(), key());
        let first = turn(looks.join(&key));
        let (one, other) = (member(looks.join(&key)), member(looks.join(&key)));
        let mut other = Box::pin(other.wait());
        assert!(other.as_mut().now_or_never().is_none());
        drop(first);
        let Some(Wakeup::Turn(asks)) = other.now_or_never() else {
            panic!("nobody asks");
        };
        drop(asks);
        let Some(Wakeup::Turn(last)) = one.wait().now_or_never() else {
            panic!("nobody asks");
        };
        drop(last);
        assert!(is_empty(&looks));
    }

    #[test]
    fn members_that_leave_before_their_turn_hold_nobody_up() {
        let (looks, key) = (Arc::<Looks>::default(), key());
        let first = turn(looks.join(&key));
        let gone = member(looks.join(&key));
        drop(gone);
        let called = member(looks.join(&key));
        let mut called = Box::pin(called.wait());
        assert!(called.as_mut().now_or_never().is_none());
        first.end();
        let next = member(looks.join(&key));
        drop(called);
        let Some(Wakeup::Turn(asks)) = next.wait().now_or_never() else {
            panic!("who was called has left, and nobody asks");
        };
        asks.tell(Ok(record()));
        assert!(is_empty(&looks));
    }

    #[test]
    fn a_failure_is_everybodys() {
        let (looks, key) = (Arc::<Looks>::default(), key());
        let first = turn(looks.join(&key));
        let (asks, told) = (member(looks.join(&key)), member(looks.join(&key)));
        first.end();
        let Some(Wakeup::Turn(asks)) = asks.wait().now_or_never() else {
            panic!("nobody asks");
        };
        asks.tell(Err(BackendError::new(BackendErrorKind::Unavailable, "it is away")));
        let Some(Wakeup::Answer(Err(error))) = told.wait().now_or_never() else {
            panic!("it is not told");
        };
        assert_eq!(error.kind(), BackendErrorKind::Unavailable);
    }
}
