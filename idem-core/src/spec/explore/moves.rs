//! What can happen in the small world: the owners' protocol, the network, and time.
//!
//! Owns the protocol of the engine, without its timing: claim, decide, take over or answer; run, renew, end; repeat what was
//! lost; release a claim whose handler has not started. Any step may come as late as it likes, which is how a stalled process
//! looks from outside. Does not own the function and the decision: the [`Subject`].

use super::setting::{Outcome, Setting};
use super::subject::{Deviation, Subject};
use super::translate::{NOW, stored, today};
use super::truth::{Truth, Violation, broken};
use super::witness::{Witness, Witnesses};
use super::world::{Answer, ClaimOf, Message, Reason, Request, Seen, World};
use crate::Decision;

/// One event. A number is the request that it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A tick passes.
    Tick,
    /// An operator reads the record.
    Read,
    /// A request comes, and its process makes a claiming call.
    Invoke(u8),
    /// The call arrives at the store, and its reply is on its way.
    Arrive(u8),
    /// Fault: the reply to the call is lost, and its process makes the call again. A lost commit is followed by a release.
    ReplyLost(u8),
    /// Fault: the commit of the handler's transaction fails, and a release follows.
    RollBack(u8),
    /// Fault: the call is late; its process makes it again.
    Late(u8),
    /// The late message arrives after all; nobody waits for its reply.
    LateArrives,
    /// Fault: the process gives the request up before it has a reply. The call may still arrive.
    GiveUp(u8),
    /// The reply is that the claim is acquired, and the handler starts.
    Start(u8),
    /// The reply is that the claim is acquired, and the client has left.
    HangUp(u8),
    /// The reply is an existing record; the process decides.
    Decide(u8),
    /// The lease is renewed.
    Renew(u8),
    /// Fault: the renewal is late.
    RenewLate(u8),
    /// The handler ends.
    End(u8, Outcome),
    /// Fault: the process crashes.
    Crash(u8),
}

impl Event {
    /// Whether the event counts as a fault.
    fn is_fault(self) -> bool {
        matches!(
            self,
            Self::ReplyLost(_)
                | Self::RollBack(_)
                | Self::Late(_)
                | Self::GiveUp(_)
                | Self::RenewLate(_)
                | Self::Crash(_)
        )
    }
}

/// The result of an event.
pub(super) struct Moved {
    pub(super) world: World,
    pub(super) seen: Witnesses,
    pub(super) violation: Option<Violation>,
    /// The call that took effect, and its reply.
    pub(super) call: Option<(Message, Answer)>,
}

/// Adds the events that are possible in `world` to `events`.
pub(super) fn possible(world: &World, setting: &Setting, subject: &Subject, events: &mut Vec<Event>) {
    events.clear();
    events.extend([Event::Tick, Event::Read]);
    if world.late.is_some() {
        events.push(Event::LateArrives);
    }
    let (may_fail, may_be_late) = (world.faults > 0, world.faults > 0 && world.late.is_none());
    for (at, request) in (0..).zip(&world.requests) {
        let mut when = |holds: bool, event: Event| {
            if holds {
                events.push(event);
            }
        };
        match request {
            Request::Idle => when(true, Event::Invoke(at)),
            Request::Gone => {}
            Request::Asking { reply, again, .. } => {
                let is_acquired = *reply == Some(Answer::Acquired);
                when(reply.is_none(), Event::Arrive(at));
                when(reply.is_none() && may_be_late && !again, Event::Late(at));
                when(reply.is_some() && may_fail && !again, Event::ReplyLost(at));
                when(may_fail && (reply.is_some() || may_be_late), Event::GiveUp(at));
                when(is_acquired, Event::Start(at));
                when(is_acquired, Event::HangUp(at));
                when(reply.is_some() && !is_acquired, Event::Decide(at));
            }
            Request::Running(_) => {
                when(true, Event::Renew(at));
                when(may_be_late, Event::RenewLate(at));
                for outcome in setting.outcomes {
                    when(true, Event::End(at, *outcome));
                }
                when(may_fail, Event::Crash(at));
                when(subject.deviates(Deviation::ReleasesOnHangUp), Event::HangUp(at));
            }
            Request::Ending(call) => {
                let is_commit = matches!(call, Message::Complete(_, Outcome::Commit));
                when(true, Event::Arrive(at));
                when(may_fail, Event::ReplyLost(at));
                // A release waits for the end of the transaction, so a commit is not late.
                when(may_be_late && !is_commit, Event::Late(at));
                when(may_fail && is_commit, Event::RollBack(at));
                when(may_fail, Event::Crash(at));
            }
        }
    }
}

/// Lets `event` happen in `world`.
pub(super) fn happen(world: &World, event: Event, setting: &Setting, subject: &Subject) -> Moved {
    let mut moved = Moved {
        world: *world,
        seen: Witnesses::default(),
        violation: None,
        call: None,
    };
    moved.violation = moved.happen(event, setting, subject).err();
    moved
}

impl Moved {
    fn happen(&mut self, event: Event, setting: &Setting, subject: &Subject) -> Result<(), Violation> {
        self.world.faults -= u8::from(event.is_fault());
        match event {
            Event::Tick => self.tick(setting),
            Event::Read => {
                self.arrive(Message::Read, setting, subject)?;
            }
            Event::Invoke(at) => self.ask(at, Message::Claim(ClaimOf::first(at))),
            Event::Arrive(at) => self.call_arrives(at, setting, subject)?,
            Event::ReplyLost(at) => self.reply_is_lost(at, setting, subject)?,
            Event::RollBack(at) => {
                if let Request::Ending(Message::Complete(claim, _)) = *self.request(at) {
                    self.release(at, claim, Reason::Outcome);
                }
            }
            Event::Late(at) => self.call_is_late(at),
            Event::LateArrives => {
                if let Some(late) = self.world.late.take() {
                    self.arrive(late, setting, subject)?;
                }
            }
            Event::GiveUp(at) => self.give_up(at, subject)?,
            Event::Start(at) => self.start(at),
            Event::HangUp(at) => self.hang_up(at, subject),
            Event::Decide(at) => self.decide(at, setting, subject)?,
            Event::Renew(at) => {
                if let Request::Running(claim) = *self.request(at) {
                    self.arrive(Message::Renew(claim), setting, subject)?;
                }
            }
            Event::RenewLate(at) => {
                if let Request::Running(claim) = *self.request(at) {
                    self.world.late = Some(Message::Renew(claim));
                }
            }
            Event::End(at, outcome) => self.end(at, outcome),
            Event::Crash(at) => {
                let is_running = matches!(self.request(at), Request::Running(_));
                self.seen.add_if(is_running, Witness::CrashWhileRunning);
                *self.request(at) = Request::Gone;
            }
        }
        Ok(())
    }

    fn request(&mut self, at: u8) -> &mut Request {
        &mut self.world.requests[usize::from(at)]
    }

    fn tick(&mut self, setting: &Setting) {
        let before = self.world.truth;
        self.world = self.world.tick(setting);
        let has_expired = matches!(before, Truth::Completed { .. }) && self.world.truth == Truth::Absent;
        let is_idle = |request: &Request| *request == Request::Idle;
        let is_telling = has_expired && self.world.requests.iter().any(is_idle);
        self.seen.add_if(is_telling, Witness::Expired);
    }

    fn ask(&mut self, at: u8, call: Message) {
        *self.request(at) = Request::Asking {
            call,
            again: false,
            reply: None,
        };
    }

    /// `message` takes effect at the store, and its reply is judged.
    fn arrive(&mut self, message: Message, setting: &Setting, subject: &Subject) -> Result<Answer, Violation> {
        let before = setting.state(self.world.stored);
        let (after, reply) = (subject.step)(&before, NOW, &setting.call(message));
        let answer = setting.answer(&reply);
        self.world.stored = stored(&after);
        self.call = Some((message, answer));
        self.world.truth = self.world.truth.judge(setting, message, answer, &mut self.seen)?;
        Ok(answer)
    }

    fn call_arrives(&mut self, at: u8, setting: &Setting, subject: &Subject) -> Result<(), Violation> {
        match *self.request(at) {
            Request::Asking { call, again, .. } => {
                let reply = Some(self.arrive(call, setting, subject)?);
                *self.request(at) = Request::Asking { call, again, reply };
            }
            Request::Ending(call) => {
                self.arrive(call, setting, subject)?;
                *self.request(at) = Request::Gone;
            }
            _ => {}
        }
        Ok(())
    }

    fn reply_is_lost(&mut self, at: u8, setting: &Setting, subject: &Subject) -> Result<(), Violation> {
        match *self.request(at) {
            Request::Asking { call, .. } => {
                *self.request(at) = Request::Asking {
                    call,
                    again: true,
                    reply: None,
                };
            }
            Request::Ending(call) => {
                self.arrive(call, setting, subject)?;
                let releases = subject.deviates(Deviation::ReleasesUnrecorded);
                match call {
                    Message::Complete(claim, Outcome::Commit) => self.release(at, claim, Reason::Outcome),
                    Message::Complete(claim, _) if releases => self.release(at, claim, Reason::None),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn call_is_late(&mut self, at: u8) {
        match *self.request(at) {
            Request::Asking { call, .. } => {
                self.world.late = Some(call);
                *self.request(at) = Request::Asking {
                    call,
                    again: true,
                    reply: None,
                };
            }
            Request::Ending(call) => self.world.late = Some(call),
            _ => {}
        }
    }

    /// The client gets an error. The claim is released, because it may be written. A takeover is left to its lease: a release
    /// would erase that there was an earlier attempt.
    fn give_up(&mut self, at: u8, subject: &Subject) -> Result<(), Violation> {
        let Request::Asking { call, reply, .. } = *self.request(at) else {
            return Ok(());
        };
        if reply.is_none() {
            self.world.late = Some(call);
        }
        let Some(claim) = call.claim() else {
            return Ok(());
        };
        if subject.deviates(Deviation::RunsUnsure) {
            return broken(
                "IDEM-1",
                "a handler starts though the store did not say that its claim is acquired",
            );
        }
        self.abandon(at, claim, subject);
        Ok(())
    }

    /// Ends a request whose handler has not started.
    fn abandon(&mut self, at: u8, claim: ClaimOf, subject: &Subject) {
        let releases = claim.attempt == 1 || subject.deviates(Deviation::ReleasesLaterAttempts);
        self.seen.add_if(releases, Witness::HangUp);
        self.seen.add_if(!releases, Witness::HangUpOfLaterAttempt);
        if releases {
            self.release(at, claim, Reason::NotStarted);
        } else {
            *self.request(at) = Request::Gone;
        }
    }

    fn release(&mut self, at: u8, claim: ClaimOf, reason: Reason) {
        *self.request(at) = Request::Ending(Message::Release(claim, reason));
    }

    fn start(&mut self, at: u8) {
        let Request::Asking { call, .. } = *self.request(at) else {
            return;
        };
        if let Some(claim) = call.claim() {
            let is_running = |request: &Request| matches!(request, Request::Running(_));
            let overlaps = self.world.requests.iter().any(is_running);
            self.seen.add_if(overlaps, Witness::Overlap);
            *self.request(at) = Request::Running(claim);
        }
    }

    fn hang_up(&mut self, at: u8, subject: &Subject) {
        match *self.request(at) {
            Request::Asking { call, .. } => {
                if let Some(claim) = call.claim() {
                    self.abandon(at, claim, subject);
                }
            }
            Request::Running(claim) => self.release(at, claim, Reason::None),
            _ => {}
        }
    }

    fn end(&mut self, at: u8, outcome: Outcome) {
        if let Request::Running(claim) = *self.request(at) {
            *self.request(at) = Request::Ending(match outcome {
                Outcome::Release => Message::Release(claim, Reason::Outcome),
                kept => Message::Complete(claim, kept),
            });
        }
    }

    fn decide(&mut self, at: u8, setting: &Setting, subject: &Subject) -> Result<(), Violation> {
        let Request::Asking {
            reply: Some(Answer::Existing(record)),
            ..
        } = *self.request(at)
        else {
            return Ok(());
        };
        let fingerprint = &setting.fingerprints[usize::from(at)];
        let decision = (subject.decide)(setting.record(record), fingerprint, &setting.policy, today());
        let truth = self.world.truth;
        setting.judge_decision(at, record, truth, &decision, &mut self.seen)?;
        match (decision, record) {
            (Decision::TakeOver(_), Seen::Claimed { claim: lapsed, .. }) => {
                let keeps = subject.deviates(Deviation::KeepsAttempt);
                let claim = ClaimOf {
                    request: at,
                    attempt: lapsed.attempt + u8::from(!keeps),
                    age: if subject.deviates(Deviation::BeginsAnew) {
                        0
                    } else {
                        lapsed.age
                    },
                };
                self.ask(at, Message::TakeOver { lapsed, claim });
            }
            _ => *self.request(at) = Request::Gone,
        }
        Ok(())
    }
}
