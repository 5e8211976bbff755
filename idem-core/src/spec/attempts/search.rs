//! The search: from each state by each move to the next ones.

use std::collections::HashSet;
use std::fmt;

use super::mutants::Mutant;
use super::world::{A, ATTEMPTS, At, B, DONE, NOW, Rule, World, call, claim, is_acknowledged};
use crate::spec::{Call, Reply, State, Steps};

/// What a search has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    /// How many states there are.
    pub states: usize,
    /// How many moves lead from one to another.
    pub transitions: usize,
    /// In how many states the record is completed.
    pub completed: usize,
    /// In how many states the record is parked.
    pub parked: usize,
    /// How often an attempt stopped at a step that was begun.
    pub interrupted: usize,
    /// How often a call was superseded.
    pub superseded: usize,
}

/// A rule that does not hold, and the moves that lead there.
#[derive(Debug)]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    moves: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} after:", self.rule)?;
        for (number, made) in (1..).zip(&self.moves) {
            writeln!(f, "  {number}. {made}")?;
        }
        Ok(())
    }
}

/// A state that was reached, and how.
struct Reached {
    world: World,
    from: Option<usize>,
    by: String,
}

struct Search<'a> {
    mutant: &'a Mutant,
    seen: HashSet<String>,
    reached: Vec<Reached>,
    explored: Explored,
}

/// Explores every state, with one thing changed by `mutant`.
///
/// # Errors
///
/// The first state in which a rule does not hold.
pub fn explore(mutant: &Mutant) -> Result<Explored, Broken> {
    let mut search = Search {
        mutant,
        seen: HashSet::new(),
        reached: Vec::new(),
        explored: Explored::default(),
    };
    search.add(World::start(), None, "start".to_owned());
    let mut next = 0;
    while next < search.reached.len() {
        search.expand(next)?;
        next += 1;
    }
    search.explored.states = search.reached.len();
    Ok(search.explored)
}

impl Search<'_> {
    fn add(&mut self, world: World, from: Option<usize>, by: String) {
        self.explored.transitions += 1;
        if self.seen.insert(world.key()) {
            match world.store {
                State::Completed { .. } => self.explored.completed += 1,
                State::Parked { .. } => self.explored.parked += 1,
                _ => {}
            }
            self.reached.push(Reached { world, from, by });
        }
    }

    fn broken(&self, rule: Rule, from: usize, by: String) -> Broken {
        let mut moves = vec![by];
        let mut at = Some(from);
        while let Some(reached) = at.map(|at| &self.reached[at]) {
            moves.push(reached.by.clone());
            at = reached.from;
        }
        moves.reverse();
        Broken { rule, moves }
    }

    /// Makes each move that is possible in one state.
    fn expand(&mut self, from: usize) -> Result<(), Broken> {
        let world = self.reached[from].world.clone();
        let mut lapsed = world.clone();
        lapsed.lapse();
        self.add(lapsed, Some(from), "the lease lapses".to_owned());
        for attempt in 0..ATTEMPTS {
            self.arrive(&world, attempt, from)?;
            self.go_on(&world, attempt, from)?;
        }
        Ok(())
    }

    /// A call that was sent before takes effect now, and its sender has gone or has not waited.
    fn arrive(&mut self, world: &World, attempt: usize, from: usize) -> Result<(), Broken> {
        let Some(sent) = world.attempts[attempt].sent else {
            return Ok(());
        };
        let mut late = world.clone();
        late.attempts[attempt].sent = None;
        if let Some(call) = call(attempt, sent) {
            (late.store, _) = (self.mutant.step)(&late.store, NOW, &call);
        }
        let by = format!("the call of attempt {attempt} at {sent:?} arrives late");
        self.check_store(&late, from, &by)?;
        self.add(late, Some(from), by);
        Ok(())
    }

    /// An attempt goes on, fails or dies.
    fn go_on(&mut self, world: &World, attempt: usize, from: usize) -> Result<(), Broken> {
        let at = world.attempts[attempt].at;
        let to = |next: At| {
            let mut moved = world.clone();
            moved.attempts[attempt].at = next;
            moved
        };
        match at {
            At::Gone => return Ok(()),
            At::Outside => {
                self.claim(world, attempt, from);
                return Ok(());
            }
            At::BodyA | At::BodyB => {
                let by = format!("attempt {attempt} calls the body at {at:?}");
                let step = usize::from(at == At::BodyB);
                let mine = world.truth.claims[attempt];
                if world.truth.acknowledged[step].is_some_and(|by| by < mine) {
                    return Err(self.broken(Rule::RecordedRunsAgain, from, by));
                }
                let mut called = to(if at == At::BodyA { At::RecordA } else { At::RecordB });
                if at == At::BodyB {
                    called.truth.bodies_of_b += 1;
                    if called.truth.bodies_of_b > 1 {
                        return Err(self.broken(Rule::RunsTwice, from, by));
                    }
                }
                self.add(called, Some(from), by);
            }
            _ => self.make_call(world, attempt, from)?,
        }
        // Its process dies, with a call on its way or without one.
        let mut died = to(At::Gone);
        self.add(died.clone(), Some(from), format!("attempt {attempt} dies at {at:?}"));
        died.attempts[attempt].sent = Some(at);
        if call(attempt, at).is_some() {
            self.add(
                died,
                Some(from),
                format!("attempt {attempt} dies with its call at {at:?} on the way"),
            );
        }
        if at != At::Park {
            // A call that was given up may still be on its way.
            let mut failed = to(At::Park);
            self.add(failed.clone(), Some(from), format!("attempt {attempt} fails at {at:?}"));
            failed.attempts[attempt].sent = call(attempt, at).map(|_| at);
            self.add(
                failed,
                Some(from),
                format!("attempt {attempt} gives its call at {at:?} up"),
            );
        }
        Ok(())
    }

    /// An attempt claims, takes over, or goes on after a parked one.
    fn claim(&mut self, world: &World, attempt: usize, from: usize) {
        let mine = claim(attempt);
        let by = format!("attempt {attempt} claims");
        let (store, reply) = match &world.store {
            State::Claimed {
                claim: held, lapses, ..
            } if *lapses <= NOW => {
                let lapsed = held.clone();
                let take_over = Call::TakeOver { lapsed, claim: mine };
                (self.mutant.step)(&world.store, NOW, &take_over)
            }
            State::Parked { claim: parked, .. } => {
                let lapsed = parked.clone();
                let take_over = Call::TakeOver { lapsed, claim: mine };
                (self.mutant.step)(&world.store, NOW, &take_over)
            }
            _ => (self.mutant.step)(&world.store, NOW, &Call::Claim(mine)),
        };
        if reply != Reply::Acquired {
            return;
        }
        let mut claimed = world.clone();
        let has_steps = matches!(&store, State::Claimed { steps, .. } if !steps.is_empty());
        claimed.store = store;
        claimed.attempts[attempt].at = if has_steps { At::Reading } else { At::BodyA };
        let last = claimed.truth.claims.iter().max().copied().unwrap_or_default();
        claimed.truth.claims[attempt] = last + 1;
        self.add(claimed, Some(from), by);
    }

    /// The call of an attempt takes effect, and its reply arrives or is lost.
    fn make_call(&mut self, world: &World, attempt: usize, from: usize) -> Result<(), Broken> {
        let at = world.attempts[attempt].at;
        let Some(mut call) = call(attempt, at) else {
            return Ok(());
        };
        if let (Call::Park(claim), true) = (&call, self.mutant.releases) {
            call = Call::Release(claim.clone());
        }
        let (store, reply) = (self.mutant.step)(&world.store, NOW, &call);
        let by = format!("attempt {attempt} at {at:?}: {reply:?}");
        let mut done = world.clone();
        done.store = store;
        if !is_acknowledged(&reply) {
            self.explored.superseded += 1;
            done.attempts[attempt].at = At::Gone;
            self.add(done, Some(from), by);
            return Ok(());
        }
        if !world.truth.is_last(attempt) {
            return Err(self.broken(Rule::SupersededRecords, from, by));
        }
        // The effect without the reply: the handler stops.
        let mut lost = done.clone();
        lost.attempts[attempt].at = At::Gone;
        self.check_store(&lost, from, &by)?;
        self.add(lost, Some(from), format!("{by}, which is lost"));
        done.attempts[attempt].at = match (at, &reply) {
            (At::Reading, Reply::Steps(Some(steps))) => {
                if !world.has_acknowledged(steps) {
                    return Err(self.broken(Rule::SuccessorMisses, from, by));
                }
                self.next_of(steps)
            }
            (At::RecordA, _) => {
                done.truth.acknowledged[0] = Some(world.truth.claims[attempt]);
                if self.mutant.skips_start { At::BodyB } else { At::StartB }
            }
            (At::StartB, _) => {
                done.truth.started = true;
                At::BodyB
            }
            (At::RecordB, _) => {
                done.truth.acknowledged[1] = Some(world.truth.claims[attempt]);
                At::Complete
            }
            _ => At::Gone,
        };
        self.check_store(&done, from, &by)?;
        self.add(done, Some(from), by);
        Ok(())
    }

    /// Where an attempt goes on that has read these steps.
    fn next_of(&mut self, steps: &Steps) -> At {
        match (steps.get(A), steps.get(B)) {
            (_, Some(b)) if *b == DONE => At::Complete,
            (_, Some(_started)) if self.mutant.reruns_started => At::BodyB,
            (_, Some(_started)) => {
                self.explored.interrupted += 1;
                At::Park
            }
            (Some(_), None) if self.mutant.skips_start => At::BodyB,
            (Some(_), None) => At::StartB,
            (None, None) => At::BodyA,
        }
    }

    fn check_store(&self, world: &World, from: usize, by: &str) -> Result<(), Broken> {
        match &world.store {
            State::Parked { steps, .. } if !world.has_acknowledged(steps) => {
                Err(self.broken(Rule::ParkedForgets, from, by.to_owned()))
            }
            _ => Ok(()),
        }
    }
}
