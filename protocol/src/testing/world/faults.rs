//! What goes wrong in a world.

use std::time::Duration;

use super::World;
use crate::register::NodeKind;
use crate::testing::subject::{HubSubject, MiddleSubject, ReplicaSubject};
use crate::wire::Start;

impl<H: HubSubject, R: ReplicaSubject, M: MiddleSubject> World<H, R, M> {
    pub(super) fn fault(&mut self) {
        let at = self.rng.below(self.connections.len());
        match self.rng.below(8) {
            0..3 if self.faults.crashes => self.cut(at),
            3 if self.faults.crashes => {
                let place = self.rng.below(self.places());
                self.crash_at(place);
                self.tell(|| format!("{place} crashes"));
            }
            4 if self.faults.crashes && self.rng.once_in(3) => self.crash_hub(),
            5 if self.faults.damage => {
                if let Some(c) = self.connections.get_mut(at) {
                    let pipe = if self.rng.once_in(2) {
                        &mut c.up
                    } else {
                        &mut c.down
                    };
                    pipe.corrupt(&mut self.rng);
                    self.damaged = true;
                    self.tell(|| format!("damage at {at}"));
                }
            }
            6 if self.faults.jumps => {
                let seconds = self.rng.below(60) as u64;
                self.now += Duration::from_secs(seconds);
                self.tell(|| format!("{seconds} s pass"));
                self.tick();
            }
            4 if self.faults.rollback => self.roll_back(),
            7 if self.faults.absence => self.forget(),
            _ => {}
        }
    }

    /// A connection ends for one side or both, anywhere in what is on its way.
    fn cut(&mut self, at: usize) {
        let Some(c) = self.connections.get_mut(at) else {
            return;
        };
        let side = self.rng.below(3);
        if side != 1 {
            c.client = None;
            c.up.cut(&mut self.rng);
        }
        if side != 0 {
            c.hub = None;
            c.down.cut(&mut self.rng);
        }
        self.tell(|| format!("cut {at}, side {side}"));
        let who = self.connections[at].who;
        self.overtake(who);
    }

    pub(super) fn crash_hub(&mut self) {
        for c in self.connections.iter_mut().filter(|c| c.of == 0) {
            if c.hub.take().is_some() {
                c.down.cut(&mut self.rng);
            }
        }
        self.hub.crash();
        self.tell(|| "the hub crashes".to_owned());
    }

    fn roll_back(&mut self) {
        match self.backup.take() {
            None => self.backup = self.hub.backup(),
            Some(backup) => {
                self.crash_hub();
                self.hub.restore(backup);
                self.tell(|| "the hub is what it was".to_owned());
            }
        }
    }

    /// The chunks of some file are lost at the hub.
    pub(super) fn lose(&mut self) {
        let view = self.hub.view();
        let files = view.live().filter(|(_, kind)| *kind == NodeKind::File);
        let files: Vec<_> = files.map(|(node, _)| node).collect();
        if let Some(node) = self.aside.pick(&files) {
            self.hub.lose(node);
            self.tell(|| format!("the hub loses the content of {node}"));
        }
    }

    /// The hub forgets what ended, if all who are there have applied it. The
    /// others have been away for a long time.
    fn forget(&mut self) {
        let at = |who: usize| match self.start(who).0 {
            Start::At(cursor) => Some(cursor.seq),
            Start::Nothing => None,
        };
        let here = self.connections.iter().filter(|c| c.of == 0);
        let here = here.map(|c| at(c.who));
        let applied = here.collect::<Option<Vec<_>>>();
        if let Some(applied) = applied.and_then(|all| all.into_iter().min()) {
            self.hub.forget(applied);
            self.tell(|| format!("the hub forgets what ended before {applied}"));
        }
    }
}
