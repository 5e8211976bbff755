//! Sharing looks: one claiming call per key at a time.
//!
//! A look is a claiming call to the backend, whose answer is the record under the key. Owns the choice which of a process's
//! requests makes the call:
//!
//! 1. The first request for a key makes a call.
//! 2. Requests that arrive during the call form a round.
//! 3. When the call has ended, one member of the round makes the next call, and all members share its answer. A call that
//!    began after a request arrived is as good as the request's own call.
//!
//! So ten thousand duplicates that arrive together cost the backend two calls, and share the bytes of one answer.
//!
//! Does not own the call, nor the meaning of its answer for each request: [`pending`](super::pending).

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::key::ByRecord;
use crate::{BackendError, Record, RecordKey};

/// The number of locks. Keys are spread over them, so that requests with different keys seldom contend.
const SHARDS: usize = 64;

/// The looks of one engine that have not ended.
pub(super) struct Looks {
    shards: Vec<Mutex<Shard>>,
}

type Shard = ByRecord<KeyState>;

/// The result of a look, for the members of a round.
type LookResult = Result<Record, BackendError>;

/// The looks at one key.
#[derive(Default)]
struct KeyState {
    /// Whether a request holds the turn. It is `false` between the moment that a member is notified of its turn and the
    /// moment that it takes the turn.
    is_asking: bool,
    /// The round that shares the current look.
    current: Option<Round>,
    /// The round of the requests that have arrived since the current look began.
    next: Option<Round>,
}

/// The requests that share one look. The member that makes the call is not counted.
struct Round {
    members: usize,
    shared: Arc<SharedAnswer>,
}

/// The answer of a round, and the wakeup of its members.
#[derive(Default)]
struct SharedAnswer {
    answer: OnceLock<LookResult>,
    /// Wakes one member to take the turn, and all members when the answer is set.
    notify: Notify,
}

/// The part that a request takes in a look.
pub(super) enum Role {
    /// The request makes the call, for itself alone.
    Turn(Turn),
    /// The request joins a round. Another request makes the call, or this one does so later for the round.
    Member(Member),
}

/// Why a member of a round is woken.
pub(super) enum Wakeup {
    /// The member makes the call for the round.
    Turn(Turn),
    /// The answer to the call of another member.
    Answer(LookResult),
}

/// The right to make the call. If it is dropped without an answer, another member of the round gets it, or the next round.
pub(super) struct Turn {
    looks: Arc<Looks>,
    key: RecordKey,
    has_ended: bool,
}

/// Membership in a round.
pub(super) struct Member {
    looks: Arc<Looks>,
    key: RecordKey,
    shared: Arc<SharedAnswer>,
    /// Whether the member is no longer counted, because it has the turn or the answer.
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
    /// Starts a look at the record under `key`, or joins the next one.
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
        // No panic leaves a key's state half-changed, so a poisoned lock is sound.
        self.shards[key.shard(SHARDS)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the current look at `key`, and wakes a member of the next round to take the turn.
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

    /// Ends a look that no other request shares, and lets the next round start.
    pub(super) fn end(mut self) {
        self.has_ended = true;
        move_on(&mut self.looks.lock(&self.key), &self.key);
    }

    /// Gives `answer` to the other members of the round, and lets the next round start.
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
    /// Waits for the answer or for the turn.
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
            // The member was woken to take the turn, and is dropped before it did.
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
