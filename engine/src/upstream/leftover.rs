//! What is ignored in a directory that goes: a cut removes it, or puts another in its
//! place, or moves it to where it is ignored, and here it has something that the hub
//! knows nothing of, or does not show.
//!
//! What is ignored is never taken away. So the directory stays as it is here, as what
//! is ignored does, and nobody hears of it until something comes into it that is
//! pushed. If it was moved to an ignored place, it goes there, where nothing is. If
//! another directory takes its place, what is ignored goes on in that; if something
//! else does, or has the name of it, it stays beside that under a name of its own.

use std::collections::{BTreeMap, BTreeSet};

use cairn_protocol::merge::Place;
use cairn_protocol::{NAME_MAX, Name, NodeId, NodeKind, Register};

use super::ignore::{Paths, Whose};
use super::plan::{Plan, Seen};
use super::state::{Base, NEVER};
use crate::Result;
use crate::attr::Ino;

/// What places come to stand for.
type Targets = BTreeMap<Place, Option<NodeId>>;

/// A directory that goes, and where it was.
type Goes = (NodeId, Place);

/// See the head of the module.
struct Leftover<'p, 'a> {
    plan: &'p Plan<'a>,
    targets: &'p mut Targets,
    /// What is ignored in each directory that goes.
    left: BTreeMap<NodeId, Vec<Name>>,
    /// The directories in each that go.
    below: BTreeMap<NodeId, Vec<Goes>>,
}

impl Plan<'_> {
    /// Has what is ignored stay, whatever goes around it. Whether there is any; if
    /// something may be in rows alone, that is all that is done.
    pub(super) fn keep_ignored(&self, targets: &mut Targets) -> Result<bool> {
        if self.ignore.is_empty() {
            return Ok(false);
        }
        self.leave_ignored(targets)?;
        let going = self.going(targets)?;
        let mut leftover = Leftover {
            plan: self,
            targets,
            left: BTreeMap::new(),
            below: BTreeMap::new(),
        };
        for (dir, at, left) in going {
            leftover.below.entry(at.0).or_default().push((dir, at));
            leftover.left.insert(dir, left);
        }
        let is_top = |dir: &&NodeId| !leftover.left.contains_key(*dir);
        let tops: Vec<NodeId> = leftover.below.keys().filter(is_top).copied().collect();
        let goes = tops.iter().filter_map(|top| leftover.below.get(top));
        let holds = goes.flatten().any(|(dir, _)| leftover.holds(*dir));
        if holds && !self.grows {
            for top in tops {
                leftover.settle(top)?;
            }
        }
        Ok(holds)
    }

    /// A directory that has stayed at an ignored place comes to one that is shown: so
    /// does what the hub has in it. Whether there is one: what is in it here was looked
    /// at when it was ignored, and has to be found.
    pub(super) fn uncover_moved(&mut self) -> Result<bool> {
        if self.ignore.is_empty() || self.grows {
            return Ok(false);
        }
        let mut dirs = Vec::new();
        for place in self.names.keys() {
            let Some(dir) = self.shared.name(place)?.and_then(|(node, _)| node) else {
                continue;
            };
            if !self.ignored_places(dir, place)?.is_empty() && !self.is_ignored(place)? {
                dirs.push(dir);
            }
        }
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            if !seen.insert(dir) {
                continue;
            }
            for (place, node) in self.shown_in(dir)? {
                dirs.push(node);
                if !self.names.contains_key(&place) {
                    found.push(place);
                }
            }
        }
        self.uncover(&found)?;
        self.comes_out = !seen.is_empty();
        Ok(self.comes_out)
    }

    /// What the hub has in a directory, but for what is ignored.
    fn shown_in(&self, dir: NodeId) -> Result<Vec<(Place, NodeId)>> {
        const PAGE: usize = 1_000;
        let (mut shown, mut after) = (Vec::new(), None);
        loop {
            let page = self.shared.children(dir, after.as_ref(), PAGE)?;
            after = page.last().map(|(name, _, _)| name.clone());
            let is_last = page.len() < PAGE;
            for (name, node, _) in page {
                let place = (dir, name);
                if !self.is_ignored(&place)? {
                    shown.push((place, node));
                }
            }
            if is_last {
                return Ok(shown);
            }
        }
    }

    /// The ignored places but one that a directory is at here.
    fn ignored_places(&self, dir: NodeId, but: &Place) -> Result<Vec<Place>> {
        let mut ignored = Vec::new();
        let here = self.local.live(dir)?;
        if let Some(here) = here.filter(|here| here.kind == NodeKind::Dir) {
            for place in self.local.places(here.ino)? {
                if place != *but && self.is_ignored(&place)? {
                    ignored.push(place);
                }
            }
        }
        Ok(ignored)
    }

    /// A directory that has stayed at an ignored place goes from there when it comes to
    /// one that is shown.
    fn leave_ignored(&self, targets: &mut Targets) -> Result<()> {
        let mut left = Vec::new();
        for (at, target) in targets.iter() {
            if let Some(dir) = target {
                left.extend(self.ignored_places(*dir, at)?);
            }
        }
        left.retain(|place| !targets.contains_key(place));
        targets.extend(left.into_iter().map(|place| (place, None)));
        Ok(())
    }

    /// The directories that lose their place and get no other, where nothing is left
    /// that is not ignored.
    fn going(&self, targets: &Targets) -> Result<Vec<(NodeId, Place, Vec<Name>)>> {
        let put: BTreeSet<NodeId> = targets.values().flatten().copied().collect();
        let mut going = Vec::new();
        for (at, target) in targets {
            let Some(dir) = self.local.at(at)? else {
                continue;
            };
            if *target == Some(dir) || put.contains(&dir) {
                continue;
            }
            let here = self.local.live(dir)?;
            if let Some(here) = here.filter(|here| here.kind == NodeKind::Dir)
                && let Some(left) = self.left_in(dir, self.local.children(here.ino)?, targets)?
            {
                going.push((dir, at.clone(), left));
            }
        }
        Ok(going)
    }

    /// What was edited and is ignored is in no replay: it stays, and whoever pushes it
    /// one day has not seen what the hub has by then.
    pub(super) fn freeze_ignored(&mut self) -> Result<()> {
        if self.ignore.is_empty() {
            return Ok(());
        }
        let replayed = self.replayed.as_ref().map(|replayed| &replayed.data);
        let mut ignored = Vec::new();
        for (node, noted) in &self.nodes {
            if let (Some(here), Some(Seen::Edited(_))) = (&noted.here, noted.data)
                && replayed.is_none_or(|data| !data.contains_key(node))
                && self.is_ignored_here(here.ino)?
            {
                ignored.push(*node);
            }
        }
        for node in ignored {
            self.frozen.insert(Register::Data(node), Base::Data(NEVER));
        }
        Ok(())
    }

    /// Whether everything that a node is called here is ignored.
    pub(super) fn is_ignored_here(&self, ino: Ino) -> Result<bool> {
        let paths = Paths::new(self.ignore, Whose::Here);
        if !paths.may_ignore() {
            return Ok(false);
        }
        for place in self.local.places(ino)? {
            if !paths.is_ignored(&self.local, self.shared, &place)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What stays in a directory, if all of it is ignored. What a replay leaves there
    /// is nothing that is pushed: it has stayed there before.
    fn left_in(
        &self,
        dir: NodeId,
        names: Vec<Name>,
        targets: &Targets,
    ) -> Result<Option<Vec<Name>>> {
        let mut left = Vec::new();
        for name in names {
            let place = (dir, name);
            match targets.get(&place) {
                Some(None) => {}
                None if self.replayed.is_some() || self.is_ignored(&place)? => left.push(place.1),
                _ => return Ok(None),
            }
        }
        Ok(Some(left))
    }
}

impl Leftover<'_, '_> {
    /// Whether something is left in a directory, or below it.
    fn holds(&self, dir: NodeId) -> bool {
        let left = self.left.get(&dir).is_some_and(|left| !left.is_empty());
        let mut below = self.below.get(&dir).into_iter().flatten();
        left || below.any(|(dir, _)| self.holds(*dir))
    }

    /// Has a node that is `from` a place go to another, or what it holds, if there is
    /// a directory already.
    fn bring(&mut self, node: NodeId, from: &Place, to: &Place) -> Result<()> {
        if let Some(place) = self.place_of(node)?
            && self.taken(&place)?.is_none()
        {
            self.put(node, from, &place);
            return self.settle(node);
        }
        match self.taken(to)? {
            Some(other) if other == node => {}
            Some(other) if self.is_alone(node)? && self.is_dir(other)? => {
                self.targets.entry(from.clone()).or_insert(None);
                return self.bring_all(node, other);
            }
            Some(_) => {
                let beside = self.beside(to)?;
                self.put(node, from, &beside);
            }
            None => self.put(node, from, to),
        }
        self.settle(node)
    }

    /// Has a node be somewhere.
    fn put(&mut self, node: NodeId, from: &Place, to: &Place) {
        if from == to {
            self.targets.remove(from);
        } else {
            self.targets.entry(from.clone()).or_insert(None);
            self.targets.insert(to.clone(), Some(node));
        }
    }

    /// What is left in a directory goes on in another.
    fn bring_all(&mut self, dir: NodeId, other: NodeId) -> Result<()> {
        let left = match (self.left.remove(&dir), self.plan.local.ino(dir)?) {
            (Some(left), _) => left,
            (None, Some(ino)) => self.plan.local.children(ino)?,
            (None, None) => Vec::new(),
        };
        for name in left {
            let from = (dir, name.clone());
            if let Some(node) = self.plan.local.at(&from)? {
                self.bring(node, &from, &(other, name))?;
            }
        }
        self.go_below(dir, other)
    }

    /// The directories in one that stays stay, too, if they hold something.
    fn settle(&mut self, dir: NodeId) -> Result<()> {
        self.go_below(dir, dir)
    }

    fn go_below(&mut self, dir: NodeId, into: NodeId) -> Result<()> {
        for (child, at) in self.below.remove(&dir).unwrap_or_default() {
            if self.holds(child) {
                self.bring(child, &at, &(into, at.1.clone()))?;
            }
        }
        Ok(())
    }

    /// What will be at a place.
    fn taken(&self, place: &Place) -> Result<Option<NodeId>> {
        match self.targets.get(place) {
            Some(node) => Ok(*node),
            None => self.plan.local.at(place),
        }
    }

    /// The ignored place that the hub has a directory at, if that is in one that is here.
    fn place_of(&self, node: NodeId) -> Result<Option<Place>> {
        let place = self.plan.shared.places_of(node)?.into_iter().next();
        let Some(place) = place.filter(|place| !self.left.contains_key(&place.0)) else {
            return Ok(None);
        };
        let is = self.plan.local.is_live(place.0)? && self.plan.is_ignored(&place)?;
        Ok(is.then_some(place))
    }

    /// Whether a node is a directory that the hub has not.
    fn is_alone(&self, node: NodeId) -> Result<bool> {
        let record = self.plan.shared.record(node)?;
        let lives = record.is_some_and(|record| record.gone.is_none());
        Ok(!lives && self.is_dir(node)?)
    }

    fn is_dir(&self, node: NodeId) -> Result<bool> {
        let kind = match self.plan.local.live(node)? {
            Some(here) => Some(here.kind),
            None => super::build::kind_of(self.plan, node)?,
        };
        Ok(kind == Some(NodeKind::Dir))
    }

    /// A free place beside another.
    fn beside(&self, place: &Place) -> Result<Place> {
        let name = place.1.as_bytes();
        let mut number = 1_u32;
        loop {
            let end = match number {
                1 => ".ignored".to_owned(),
                _ => format!(".ignored-{number}"),
            };
            let kept = name.len().min(NAME_MAX - end.len());
            let mut bytes = name[..kept].to_vec();
            bytes.extend_from_slice(end.as_bytes());
            let name = Name::new(&bytes).map_err(|e| crate::db::corrupt(place.0, e))?;
            let beside = (place.0, name);
            if self.taken(&beside)?.is_none() && self.plan.shared.name(&beside)?.is_none() {
                return Ok(beside);
            }
            number += 1;
        }
    }
}
