//! The moves that are possible in a state.
//!
//! Owns the protocol of the engine for a handler of two steps, and what is checked at each move. Does not own the order of the search.

use super::mutants::Deviation;
use super::search::{Broken, Search};
use super::witness::Witness;
use super::world::{A, ATTEMPTS, At, B, DONE, NOW, Rule, World, call, claim, is_acknowledged, start_by};
use crate::spec::{Call, Reply, State, Steps};

impl Search<'_> {
    /// Makes each move that is possible in one state.
    pub(super) fn expand(&mut self, world: &World) -> Result<(), Broken> {
        let mut lapsed = world.clone();
        lapsed.lapse();
        self.add(lapsed, "the lease lapses".to_owned());
        let mut expired = world.clone();
        if expired.expire() {
            if has_steps(&world.store) {
                self.saw(Witness::Expired);
            }
            self.add(expired, "the record expires".to_owned());
        }
        self.operate(world)?;
        for attempt in 0..ATTEMPTS {
            self.arrive(world, attempt)?;
            self.go_on(world, attempt)?;
        }
        Ok(())
    }

    /// A call that was sent before takes effect now, and its sender has gone or has not waited.
    fn arrive(&mut self, world: &World, attempt: usize) -> Result<(), Broken> {
        let Some((sent, call)) = world.attempts[attempt]
            .sent
            .and_then(|at| Some((at, call(attempt, at)?)))
        else {
            return Ok(());
        };
        let mut late = world.clone();
        late.attempts[attempt].sent = None;
        let (store, reply) = (self.mutant.step)(&late.store, NOW, &call);
        late.store = store;
        if reply == Reply::Fenced(crate::Fenced::Applied) {
            self.saw(Witness::TookEffectLate);
            late.count_end(&world.store);
        }
        let by = format!("the call of attempt {attempt} at {sent:?} arrives late");
        self.check_store(&late, &by)?;
        self.add(late, by);
        Ok(())
    }

    /// An attempt goes on, fails or dies.
    fn go_on(&mut self, world: &World, attempt: usize) -> Result<(), Broken> {
        let at = world.attempts[attempt].at;
        match at {
            At::Gone => return Ok(()),
            At::Outside => return self.claim(world, attempt),
            At::BodyA | At::BodyB => self.call_body(world, attempt)?,
            At::Reconcile => self.reconcile(world, attempt),
            _ => {
                self.make_call(world, attempt)?;
                self.lose_call(world, attempt);
            }
        }
        // Its process dies, with a call on its way or without one.
        let is_calling = call(attempt, at).is_some();
        let mut died = to(world, attempt, At::Gone);
        self.add(died.clone(), format!("attempt {attempt} dies at {at:?}"));
        if is_calling && died.take_fault() {
            died.attempts[attempt].sent = Some(at);
            let by = format!("attempt {attempt} dies with its call at {at:?} on the way");
            self.add(died, by);
        }
        if at != At::Park {
            // A call that was given up may still be on its way.
            let mut failed = to(world, attempt, At::Park);
            self.add(failed.clone(), format!("attempt {attempt} fails at {at:?}"));
            if is_calling && failed.take_fault() {
                failed.attempts[attempt].sent = Some(at);
                self.add(failed, format!("attempt {attempt} gives its call at {at:?} up"));
            }
        }
        Ok(())
    }

    fn call_body(&mut self, world: &World, attempt: usize) -> Result<(), Broken> {
        let at = world.attempts[attempt].at;
        let (step, next) = if at == At::BodyA {
            (0, At::RecordA)
        } else {
            (1, At::RecordB)
        };
        let by = format!("attempt {attempt} calls the body at {at:?}");
        let mut called = to(world, attempt, next);
        if !world.truth.is_owner(attempt) {
            self.saw(Witness::CalledWhileSuperseded);
        }
        if world.truth.is_of_record(attempt) {
            let mine = world.truth.claims[attempt];
            let is_recorded = world.truth.acknowledged[step].is_some_and(|by| by < mine);
            self.check(!is_recorded, Rule::RecordedRunsAgain, &by)?;
            let is_after_denial = world.truth.is_denied && !world.truth.is_owner(attempt);
            if at == At::BodyB && !is_after_denial {
                called.truth.bodies_of_b += 1;
                let is_first = called.truth.bodies_of_b == 1;
                // What an attempt was told is true until a superseded one goes on.
                let is_superseded = self.mutant.setting.reconciles && !world.truth.is_last(attempt);
                let is_told = world.attempts[attempt].is_told || is_superseded;
                self.check(is_first || is_told, Rule::RunsTwice, &by)?;
            }
        }
        self.add(called, by);
        Ok(())
    }

    /// An attempt asks what became of step `b`. If it did not happen, its start is recorded once more, so that an attempt that was
    /// superseded meanwhile does not call the body.
    fn reconcile(&mut self, world: &World, attempt: usize) {
        let has_happened = world.truth.bodies_of_b > 0;
        let (next, witness) = if has_happened {
            (At::RecordB, Witness::FoundToHaveHappened)
        } else {
            (At::StartB, Witness::FoundNotToHaveHappened)
        };
        self.saw(witness);
        let mut told = to(world, attempt, next);
        told.attempts[attempt].is_told = !has_happened;
        self.add(told, format!("attempt {attempt} reconciles: happened {has_happened}"));
    }

    /// An attempt claims, takes over, or goes on after a parked one.
    fn claim(&mut self, world: &World, attempt: usize) -> Result<(), Broken> {
        // Attempts that have not claimed differ by their names alone, so the first of them is the next to claim.
        if world.attempts[..attempt].iter().any(|before| before.at == At::Outside) {
            return Ok(());
        }
        let mine = claim(attempt);
        let by = format!("attempt {attempt} claims");
        let (made, witness) = match world.store.at(NOW) {
            State::Claimed {
                claim: held, lapses, ..
            } if *lapses <= NOW => (take_over(held, mine), Some(Witness::TookOver)),
            State::Parked { claim: parked, .. } => (take_over(parked, mine), Some(Witness::Continued)),
            _ => (Call::Claim(mine), None),
        };
        let (store, reply) = (self.mutant.step)(&world.store, NOW, &made);
        if reply != Reply::Acquired {
            return Ok(());
        }
        let is_closed = world.truth.is_closed && !world.truth.is_over;
        self.check(!is_closed, Rule::SettledRuns, &by)?;
        let is_stepped = has_steps(&store);
        if let Some(witness) = witness.filter(|_| is_stepped) {
            self.saw(witness);
        }
        if world.truth.is_over {
            self.check(!is_stepped, Rule::ExpiredSeen, &by)?;
            if has_steps(&world.store) {
                self.saw(Witness::BegunAnew);
            }
        }
        let mut claimed = to(world, attempt, if is_stepped { At::Reading } else { At::BodyA });
        claimed.store = store;
        claimed.truth.claimed(attempt);
        self.add(claimed, by);
        Ok(())
    }

    /// The call of an attempt takes effect, and its reply arrives or is lost.
    fn make_call(&mut self, world: &World, attempt: usize) -> Result<(), Broken> {
        let at = world.attempts[attempt].at;
        let Some(made) = self.call(attempt, at) else {
            return Ok(());
        };
        let (store, reply) = (self.mutant.step)(&world.store, NOW, &made);
        let by = format!("attempt {attempt} at {at:?}: {reply:?}");
        let mut done = world.clone();
        done.store = store;
        if !is_acknowledged(&reply) {
            self.saw(Witness::Superseded);
            done.attempts[attempt].at = At::Gone;
            self.add(done, by);
            return Ok(());
        }
        // Repeating a parking or a completion is acknowledged after the attempt has ended.
        self.check(world.truth.is_owner(attempt), Rule::SupersededRecords, &by)?;
        done.count_end(&world.store);
        // The effect without the reply: the handler stops, or repeats the call.
        let mut lost = done.clone();
        if lost.take_fault() {
            lost.attempts[attempt].at = At::Gone;
            self.check_store(&lost, &by)?;
            self.add(lost.clone(), format!("{by}, which is lost"));
            if let Some(next) = self.after_error(at) {
                lost.attempts[attempt].at = next;
                self.add(
                    lost,
                    format!("{by}, which is lost, and the attempt goes on at {next:?}"),
                );
            }
        }
        self.acknowledge(&mut done, world, (attempt, at), &reply, &by)?;
        self.check_store(&done, &by)?;
        self.add(done, by);
        Ok(())
    }

    /// What an attempt learns from a reply, and does next.
    fn acknowledge(
        &mut self,
        done: &mut World,
        world: &World,
        (attempt, at): (usize, At),
        reply: &Reply,
        by: &str,
    ) -> Result<(), Broken> {
        let acknowledged = Some(world.truth.claims[attempt]);
        done.attempts[attempt].at = match (at, reply) {
            (At::Reading | At::FindStart, Reply::Steps(Some(steps))) => {
                self.check(world.has_acknowledged(steps), Rule::SuccessorMisses, by)?;
                self.after_reading(done, attempt, steps)
            }
            (At::RecordA, _) => {
                done.truth.acknowledged[0] = acknowledged;
                self.before_b()
            }
            (At::StartB, _) => {
                done.truth.started = true;
                At::BodyB
            }
            (At::RecordB, _) => {
                done.truth.acknowledged[1] = acknowledged;
                At::Complete
            }
            (At::Park, _) => {
                let is_held = matches!(done.store, State::Claimed { .. });
                self.check(!is_held, Rule::ParkedHolds, by)?;
                let is_forgotten = done.store == State::Absent && !world.has_acknowledged(&Steps::new());
                self.check(!is_forgotten, Rule::ParkedForgets, by)?;
                At::Gone
            }
            _ => At::Gone,
        };
        Ok(())
    }

    /// The call of an attempt fails at once. It is on its way, or lost.
    fn lose_call(&mut self, world: &World, attempt: usize) {
        let at = world.attempts[attempt].at;
        let Some(next) = self.after_error(at) else {
            return;
        };
        let mut failed = to(world, attempt, next);
        if !failed.take_fault() {
            return;
        }
        let by = format!("the call of attempt {attempt} at {at:?} fails");
        self.add(failed.clone(), format!("{by}, and is lost"));
        failed.attempts[attempt].sent = Some(at);
        self.add(failed, format!("{by}, and is on its way"));
    }

    /// Where an attempt goes on after a call about a step that has failed. The end of a step is sent again. A start is looked for.
    fn after_error(&self, at: At) -> Option<At> {
        match at {
            At::StartB if self.mutant.is(Deviation::SendsStartAgain) => Some(at),
            At::StartB => Some(At::FindStart),
            At::RecordA | At::RecordB => Some(at),
            _ => None,
        }
    }

    fn call(&self, attempt: usize, at: At) -> Option<Call> {
        match call(attempt, at) {
            Some(Call::Park(claim)) if self.mutant.is(Deviation::Releases) => Some(Call::Release(claim)),
            made => made,
        }
    }

    fn before_b(&self) -> At {
        if self.mutant.is(Deviation::SkipsStart) {
            At::BodyB
        } else {
            At::StartB
        }
    }

    /// Where an attempt goes on that has read these steps.
    fn after_reading(&mut self, done: &mut World, attempt: usize, steps: &Steps) -> At {
        if done.attempts[attempt].at == At::FindStart {
            let is_own = steps.get(B) == Some(&start_by(attempt));
            let is_found = is_own || steps.contains_key(B) && self.mutant.is(Deviation::TakesAnyStart);
            let witness = if is_found {
                Witness::StartFound
            } else {
                Witness::StartNotFound
            };
            self.saw(witness);
            done.truth.started |= is_found;
            let goes_on = is_found || self.mutant.is(Deviation::TrustsStart);
            return if goes_on { At::BodyB } else { At::Park };
        }
        if steps.contains_key(A) {
            self.saw(Witness::Resumed);
        }
        match (steps.get(A), steps.get(B)) {
            (_, Some(b)) if *b == DONE => At::Complete,
            (_, Some(_started)) if self.mutant.is(Deviation::RerunsStarted) => At::StartB,
            (_, Some(_started)) if self.mutant.setting.reconciles => At::Reconcile,
            (_, Some(_started)) => {
                self.saw(Witness::Interrupted);
                At::Park
            }
            (Some(_), None) => self.before_b(),
            (None, None) => At::BodyA,
        }
    }

    pub(super) fn check_store(&self, world: &World, by: &str) -> Result<(), Broken> {
        let has_all = match world.store.at(NOW) {
            State::Parked { steps, .. } => world.has_acknowledged(steps),
            _ => true,
        };
        self.check(has_all, Rule::ParkedForgets, by)
    }
}

fn to(world: &World, attempt: usize, at: At) -> World {
    let mut moved = world.clone();
    moved.attempts[attempt].at = at;
    moved
}

fn take_over(ownerless: &crate::Claim, claim: crate::Claim) -> Call {
    Call::TakeOver {
        lapsed: ownerless.clone(),
        claim,
    }
}

fn has_steps(store: &State) -> bool {
    matches!(store, State::Claimed { steps, .. } | State::Parked { steps, .. } if !steps.is_empty())
}
