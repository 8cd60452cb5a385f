//! What has to hold in a world: the laws that can be looked at from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Failure, World};
use crate::id::NodeId;
use crate::register::NodeKind;
use crate::session::{Command, Ended, Event};
use crate::testing::subject::{HubSubject, MiddleSubject, ReplicaSubject};
use crate::testing::tree::ModelTree;
use crate::wire::Code;

impl<H: HubSubject, R: ReplicaSubject, M: MiddleSubject> World<H, R, M> {
    /// Takes away what is over, and looks at why.
    pub(super) fn reap(&mut self) -> Result<(), Failure> {
        let mut why = Vec::new();
        for c in &mut self.connections {
            let now = self.now;
            if let Some(end) = &mut c.client {
                let mut halted = false;
                for event in end.events.drain(..) {
                    halted |= matches!(event, Event::Halted { .. });
                    if let Event::Fenced { id, .. } = event {
                        c.fences.remove(&id);
                    }
                }
                if halted {
                    end.command(now, Command::Proceed, &mut c.up);
                }
            }
            if let Some(end) = &mut c.hub {
                end.events.clear();
            }
            if let Some(end) = c.client.take_if(|end| end.ended.is_some()) {
                why.extend(end.ended);
            }
            if let Some(end) = c.hub.take_if(|end| end.ended.is_some()) {
                why.extend(end.ended);
            }
        }
        self.connections
            .retain(|c| c.client.is_some() || c.hub.is_some());
        why.iter().try_for_each(|ended| self.may_end(ended))?;
        for ended in why {
            self.tell(|| format!("ended: {ended}"));
        }
        Ok(())
    }

    /// Peers that keep the rules find no fault with each other.
    fn may_end(&self, ended: &Ended) -> Result<(), Failure> {
        let quiet = ["silent", "who it is"];
        let for_time = ended.code == Code::STATE && quiet.iter().any(|q| ended.detail.contains(q));
        let lost = self.faults.rollback && [Code::FORKED, Code::EPOCH].contains(&ended.code);
        // Who needs a chunk that nobody has given again yet asks again later.
        let missing = self.faults.losses && ended.code == Code::CHUNK_MISSING;
        if self.damaged || for_time || lost || missing || ended.code == Code::SHUTDOWN {
            return Ok(());
        }
        Err(format!("a session ended without reason: {ended}"))
    }

    /// Notes how far the hub is.
    pub(super) fn follow_hub(&mut self) {
        while self.hub.view_at(self.head + 1).is_some() {
            self.head += 1;
        }
    }

    /// What was removed, and nobody touched meanwhile, has not come again (I8).
    fn check_returns(&self) -> Result<(), Failure> {
        // A hub that was rolled back gets back what it lost; and who has pushed
        // to a hub in the middle does not know when the first of all hears of it.
        if self.faults.rollback || !self.middles.is_empty() {
            return Ok(());
        }
        let history: Vec<_> = (1..=self.head)
            .map_while(|seq| self.hub.view_at(seq))
            .collect();
        let last = self.places() as u64;
        let of_replica = |node: NodeId| (1..=last).contains(&node.replica.0);
        match self.touches.returned(&history, of_replica).as_slice() {
            [] => Ok(()),
            returned => Err(format!("what was removed came again (I8): {returned:?}")),
        }
    }

    /// A file that a replica set aside, as it had not seen what it would have
    /// removed (R8), was renamed by it, as if a program had done that (R14).
    fn note_set_aside(&mut self, who: usize, confirmed: &ModelTree) {
        if !self.middles.is_empty() {
            // The law is not looked at, and not every client is at a place.
            return;
        }
        let view = self.view(who);
        let renamed = view.names().filter(|(place, node)| {
            confirmed.is_live(*node)
                && confirmed.at(place) != Some(*node)
                && confirmed.kind(*node) != Some(NodeKind::Dir)
        });
        for (_, node) in renamed {
            self.touches.touched(who, node);
        }
    }

    /// A cut is the hub's tree at its commit (I4).
    pub(super) fn check(&mut self, who: usize) -> Result<(), Failure> {
        if self.touches.is_open(who) && self.is_clean(who) {
            self.touches.settled(who, self.head);
        }
        let confirmed = self.confirmed(who);
        let Some((cursor, tree)) = confirmed.filter(|_| !self.faults.rollback) else {
            return Ok(());
        };
        self.note_set_aside(who, &tree);
        let hub = self.hub_view_at(self.hub_of(who), cursor.seq);
        if let Some(hub) = hub.filter(|hub| *hub != tree) {
            let (seq, unlike) = (cursor.seq, tree.unlike(&hub));
            let what = format!("replica {who} has another tree at {seq} (I4): {unlike}");
            return Err(what);
        }
        Ok(())
    }

    /// Nothing goes wrong any more: everybody comes to rest with one tree.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        self.tell(|| "now nothing goes wrong".to_owned());
        self.cheer_up();
        let (from, mut steps) = (self.now, 0);
        loop {
            for who in 0..self.clients() {
                self.connect(who);
            }
            if self.can().is_empty() && self.differences().is_none() {
                break;
            }
            self.happen()?;
            self.reap()?;
            steps += 1;
            if self.is_late(from) || steps > 200_000 {
                let what = self.differences().unwrap_or_default();
                return Err(format!("no rest after {steps} steps: {what}"));
            }
        }
        self.is_silent()?;
        if let Some(what) = self.differences() {
            return Err(what);
        }
        if self
            .connections
            .iter()
            .any(|c| c.client.is_some() && !c.fences.is_empty())
        {
            return Err("a fence is not passed".to_owned());
        }
        for who in 0..self.places() {
            self.check_at(who)
                .map_err(|e| format!("replica {who}: {e}"))?;
        }
        self.check_returns()?;
        self.hub.check().map_err(|e| format!("hub: {e}"))?;
        let tree = self.hub.view();
        tree.check().map_err(|e| format!("hub: {e} (I11)"))?;
        match self.oracle.lost(&tree).as_slice() {
            [] => Ok(()),
            lost => Err(format!("lost updates (I2): {lost:?}")),
        }
    }

    /// In what somebody differs from the hub (I1).
    fn differences(&self) -> Option<Failure> {
        let dirty = (0..self.clients()).find(|who| !self.is_clean(*who));
        if let Some(who) = dirty {
            return Some(format!("replica {who} has something to push"));
        }
        let hub = self.hub.view();
        let places = (0..self.places()).map(|who| (format!("replica {who}"), self.view(who)));
        let middles = 1..=self.middles.len();
        let middles = middles.map(|of| (format!("the hub {of}"), self.hub_view(of)));
        let (who, other) = places.chain(middles).find(|(_, tree)| *tree != hub)?;
        let unlike = other.unlike(&hub);
        Some(format!(
            "{who} has another tree than the hub (I1): {unlike}"
        ))
    }

    /// Nobody says anything any more but pings.
    fn is_silent(&mut self) -> Result<(), Failure> {
        let sent = |world: &Self| {
            let ends = world.connections.iter().map(|c| {
                let client = c.client.as_ref().map_or(0, |end| end.sent);
                client + c.hub.as_ref().map_or(0, |end| end.sent)
            });
            ends.sum::<u64>()
        };
        let before = sent(self);
        let until = self.now + Duration::from_mins(2);
        let ends: BTreeSet<Duration> = self.connections.iter().map(|c| c.made_at).collect();
        while self.now < until {
            self.happen()?;
            self.reap()?;
        }
        let after: BTreeSet<Duration> = self.connections.iter().map(|c| c.made_at).collect();
        if sent(self) != before || ends != after {
            return Err("there is traffic after everything is done".to_owned());
        }
        Ok(())
    }
}
