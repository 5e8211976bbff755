//! The search: every world that can be reached, breadth first.
//!
//! Owns the set of worlds, the figures, and the shortest way to a broken rule. Does not own what happens on the way.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::moves::{happen, possible};
use super::setting::Setting;
use super::subject::Subject;
use super::trace::Counterexample;
use super::witness::Witnesses;
use super::world::World;

/// The figures of an exploration that broke no rule.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// The worlds that can be reached; those that differ only by the names of equal requests are one.
    pub states: usize,
    /// The events that can happen in them.
    pub transitions: usize,
    /// The most events that a world is away from the start.
    pub depth: usize,
    /// How long the exploration took.
    pub time: Duration,
    /// The situations that were reached.
    pub seen: Witnesses,
}

/// Explores every world that can be reached, until a rule is broken.
pub(super) fn search(setting: &Setting, subject: &Subject) -> Result<Figures, Counterexample> {
    let begun = Instant::now();
    let mut worlds = Worlds::default();
    worlds.insert(World::new(setting).canonical(setting), 0);
    let (mut seen, mut transitions, mut depth) = (Witnesses::default(), 0, 0);
    let (mut at, mut end_of_level) = (0, 1);
    let mut events = Vec::new();
    while let Some(world) = worlds.found.get(at).copied() {
        if at == end_of_level {
            (depth, end_of_level) = (depth + 1, worlds.found.len());
        }
        possible(&world, setting, subject, &mut events);
        for event in &events {
            let moved = happen(&world, *event, setting, subject);
            transitions += 1;
            seen.add_all(moved.seen);
            if moved.violation.is_some() {
                return Err(Counterexample::new(&worlds.way_to(at), setting, subject));
            }
            if moved.world != world {
                worlds.insert(moved.world.canonical(setting), at);
            }
        }
        at += 1;
    }
    Ok(Figures {
        states: worlds.found.len(),
        transitions,
        depth,
        time: begun.elapsed(),
        seen,
    })
}

/// The worlds in the order in which they were found, and a hash table of their places.
#[derive(Default)]
struct Worlds {
    found: Vec<World>,
    /// For each world, the place of the one that it was reached from.
    parents: Vec<u32>,
    /// Places plus one; zero is free. Its length is a power of two.
    table: Vec<u32>,
}

impl Worlds {
    fn insert(&mut self, world: World, parent: usize) {
        if self.found.len() * 2 >= self.table.len() {
            self.grow();
        }
        let mut slot = self.slot(&world);
        while let Some(place) = self.table[slot].checked_sub(1) {
            if self.found[place as usize] == world {
                return;
            }
            slot = (slot + 1) % self.table.len();
        }
        self.found.push(world);
        self.parents.push(place(parent));
        self.table[slot] = place(self.found.len());
    }

    fn slot(&self, world: &World) -> usize {
        let hash = BuildHasherDefault::<Mixer>::default().hash_one(world);
        usize::try_from(hash >> 20).unwrap_or_default() & (self.table.len() - 1)
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(1 << 10)];
        for at in 0..self.found.len() {
            let mut slot = self.slot(&self.found[at]);
            while self.table[slot] != 0 {
                slot = (slot + 1) % self.table.len();
            }
            self.table[slot] = place(at + 1);
        }
    }

    /// The worlds from the start to the one at `place`.
    fn way_to(&self, mut place: usize) -> Vec<World> {
        let mut way = vec![self.found[place]];
        while place != 0 {
            place = self.parents[place] as usize;
            way.push(self.found[place]);
        }
        way.reverse();
        way
    }
}

fn place(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A fast hash of a world.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.cast_unsigned() as u64);
    }
}
