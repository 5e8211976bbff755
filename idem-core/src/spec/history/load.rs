//! Calls at random, of several owners on a few keys, whose leases lapse and whose records expire.
//!
//! Owns what an owner does. Every random choice comes from its seed; how the owners' calls interleave does not.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::inspect::{Inspector, LiveClaim, RecordVersion, Settlement, StepChange};
use crate::steps::StepStore;
use crate::{Acquisition, Backend, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, Record, RecordKey, Token};

/// A sequence of numbers that follows from its seed (`SplitMix64`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// One owner of claims, which may be superseded and go on all the same.
#[derive(Debug)]
pub(crate) struct Load<'a, B> {
    backend: &'a B,
    keys: &'a [RecordKey],
    random: Random,
    /// The last claim on each key.
    held: Vec<Option<Held>>,
    /// The version of each key's record that an operator has seen last.
    shown: Vec<Option<RecordVersion>>,
}

/// A claim, whether or not it is still in place, or ever was.
#[derive(Clone, Debug)]
struct Held {
    /// The claim. It has steps if its owner has tried to record one.
    claim: Claim,
    /// The claim that it took over.
    lapsed: Option<Claim>,
    /// Whether its owner knows of a recorded step.
    knows_of_steps: bool,
}

impl<'a, B: Backend> Load<'a, B> {
    pub(crate) fn new(backend: &'a B, keys: &'a [RecordKey], seed: u64) -> Self {
        Self {
            backend,
            keys,
            random: Random(seed),
            held: vec![None; keys.len()],
            shown: vec![None; keys.len()],
        }
    }

    /// Makes so many calls, or a few more. An error is as good as a lost reply.
    pub(crate) async fn run(mut self, calls: usize) {
        for _ in 0..calls {
            let pause = self.random.millis(0, 16);
            sleep(pause).await;
            let at = usize::try_from(self.random.below(self.keys.len() as u64)).unwrap_or(0);
            // Some callers give up at once, while the call is on its way.
            if self.random.below(8) == 0 {
                let patience = self.random.millis(0, 3);
                let _ = timeout(patience, self.call(at)).await;
            } else {
                self.call(at).await;
            }
        }
    }

    async fn call(&mut self, at: usize) {
        let (backend, key) = (self.backend, &self.keys[at]);
        if let Some(inspector) = backend.inspector()
            && self.random.below(8) == 0
        {
            return self.settle(at, inspector).await;
        }
        let choices = if backend.steps().is_some() { 14 } else { 10 };
        let choice = self.random.below(choices);
        let Some(Held {
            claim: held, lapsed, ..
        }) = self.held[at].clone().filter(|_| choice >= 4)
        else {
            return self.acquire(at).await;
        };
        match choice {
            4..=5 => drop(backend.renew(key, &held).await),
            6 => {
                let outcome = match self.random.below(5) {
                    0 => Completion::NotStored,
                    1 => Completion::Unknown,
                    number => Completion::Stored(vec![u8::try_from(number).unwrap_or(0); 48].into()),
                };
                let ttl = self.random.millis(60, 200);
                drop(backend.complete(key, &held, &outcome, ttl).await);
            }
            7 => drop(backend.read(key).await),
            8 => drop(backend.release(key, &held).await),
            10.. => self.call_about_steps(at, choice, held).await,
            // As after a reply that was lost.
            _ => match lapsed {
                Some(lapsed) => drop(backend.take_over(key, &lapsed, &held).await),
                None => drop(backend.claim(key, &held).await),
            },
        }
    }

    fn rerun(&mut self, step: Option<StepChange>) -> Settlement {
        Settlement::Rerun {
            token: self.token(),
            began_at: SystemTime::UNIX_EPOCH,
            step,
        }
    }

    /// Looks at a record as an operator, and settles it, or what was seen before.
    async fn settle(&mut self, at: usize, inspector: Inspector<'_>) {
        let key = &self.keys[at];
        if self.shown[at].is_none() || self.random.below(4) > 0 {
            let shown = inspector.inspect(key).await;
            self.shown[at] = shown.ok().flatten().map(|shown| shown.version());
        }
        let Some(version) = self.shown[at] else { return };
        let name = ["a", "b"][usize::from(self.random.below(2) == 1)].to_owned();
        let settlement = match self.random.below(6) {
            0 => Settlement::Forget,
            1 => self.rerun(None),
            2 => self.rerun(Some(StepChange::NotDone { name })),
            3 => {
                let step = vec![7; if self.random.below(2) == 0 { 48 } else { 2 }].into();
                self.rerun(Some(StepChange::Done { name, step }))
            }
            number => Settlement::Complete {
                token: self.token(),
                completion: if number == 4 {
                    Completion::Unknown
                } else {
                    Completion::Stored(vec![9; 48].into())
                },
                ttl: self.random.millis(60, 200),
            },
        };
        let live = if self.random.below(2) == 0 {
            LiveClaim::Force
        } else {
            LiveClaim::Refuse
        };
        drop(inspector.settle(key, version, &settlement, live).await);
        // As after a reply that was lost.
        if self.random.below(4) == 0 {
            drop(inspector.settle(key, version, &settlement, live).await);
        }
    }

    /// Records a step under one of two names, reads the steps, or parks.
    async fn call_about_steps(&mut self, at: usize, choice: u64, held: Claim) {
        let (backend, key) = (self.backend, &self.keys[at]);
        let Some(steps) = backend.steps() else {
            return;
        };
        match choice {
            10..=11 => {
                let name = ["a", "b"][usize::from(self.random.below(2) == 1)];
                let value = u8::try_from(self.random.below(200)).unwrap_or(0);
                // A step of 48 bytes is written down as its digest.
                let step = vec![value; if self.random.below(4) == 0 { 48 } else { 2 }];
                self.record_step(at, (steps, key), name, step.into()).await;
            }
            12 => drop(steps.read_steps(key, &held).await),
            _ => drop(steps.park(key, &held).await),
        }
    }

    async fn record_step(&mut self, at: usize, (steps, key): (StepStore<'_>, &RecordKey), name: &str, step: Bytes) {
        let Some(held) = &mut self.held[at] else { return };
        held.claim.has_steps = true;
        let claim = Claim {
            has_steps: held.knows_of_steps,
            ..held.claim.clone()
        };
        let recorded = steps.record_step(key, &claim, name, &step).await;
        held.knows_of_steps |= matches!(recorded, Ok(Fenced::Applied));
    }

    fn hold(&mut self, at: usize, claim: &Claim, lapsed: Option<&Claim>) {
        self.held[at] = Some(Held {
            claim: claim.clone(),
            lapsed: lapsed.cloned(),
            knows_of_steps: claim.has_steps,
        });
    }

    fn token(&mut self) -> Token {
        let mut half = || u128::from(self.random.below(u64::MAX));
        Token::from_bytes((half() << 64 | half()).to_be_bytes())
    }

    /// Claims the key, or takes it over if its claim has lapsed or is parked.
    async fn acquire(&mut self, at: usize) {
        let (backend, key) = (self.backend, &self.keys[at]);
        let mut claim = Claim {
            token: self.token(),
            lease: self.random.millis(40, 120),
            ttl: self.random.millis(60, 200),
            ..Claim::first(Fingerprint::new(1, [7; 32]), &ClaimPolicy::new(Duration::from_secs(1)))
        };
        self.hold(at, &claim, None);
        let ownerless = match backend.claim(key, &claim).await {
            Ok(Acquisition::Existing(Record::Claimed {
                claim: lapsed,
                remaining,
            })) if remaining.is_zero() || self.random.below(8) == 0 => Some(lapsed),
            Ok(Acquisition::Existing(Record::Parked { claim: parked })) => Some(parked),
            _ => None,
        };
        if let Some(lapsed) = ownerless {
            (claim.attempt, claim.has_steps) = (lapsed.attempt + 1, lapsed.has_steps);
            self.hold(at, &claim, Some(&lapsed));
            drop(backend.take_over(key, &lapsed, &claim).await);
        }
    }
}
