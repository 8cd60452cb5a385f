//! Which registers may have been edited: what the replica's own log names since
//! it was looked at last, what others changed since its editor saw it, and what
//! is being written. [`super::edits`] looks whether each was.

use cairn_protocol::{Name, Register, Ver};
use rusqlite::params;

use super::edits::{Bounds, Edits, Work};
use super::state::Told;
use crate::Result;
use crate::attr::Ino;
use crate::db::{corrupt, int, uint};

impl Edits<'_> {
    /// Looks at what the log says after `from` but for what was `told`, until
    /// there is enough. Returns how far that is.
    pub(super) fn scan(&mut self, from: Ver, told: Option<Told>, bounds: &Bounds) -> Result<Ver> {
        let Some(told) = told.filter(|told| from < told.upto) else {
            return Ok(self.scan_between(from, Ver::MAX, bounds)?.0);
        };
        if from < told.after
            && let (upto, false) = self.scan_between(from, told.after, bounds)?
        {
            return Ok(upto);
        }
        Ok(self.scan_between(told.upto, Ver::MAX, bounds)?.0)
    }

    /// The same up to a version. Also tells whether that is all there is.
    fn scan_between(&mut self, from: Ver, last: Ver, bounds: &Bounds) -> Result<(Ver, bool)> {
        let mut log = self.local.db.prepare_cached(
            "SELECT ver, kind, ino, hash, name FROM log WHERE ver > ? AND ver <= ? ORDER BY ver",
        )?;
        let mut rows = log.query([int(from), int(last)])?;
        let mut upto = from;
        while let Some(row) = rows.next()? {
            let (ver, ino) = (uint(row.get(0)?), Ino(uint(row.get(2)?)));
            let before = self.list.len();
            match row.get::<_, u8>(1)? {
                0 if !self.seen_nodes.contains(&ino.0) && self.is_node_current(ino, ver)? => {
                    self.work.push(Work::Node(ino));
                }
                1 => {
                    let bytes: Vec<u8> = row.get(4)?;
                    let name = Name::new(&bytes).map_err(|e| corrupt(ino, e))?;
                    let place = (self.dir(ino)?, name);
                    // Most came with their nodes.
                    if !self.seen_places.contains(&place)
                        && self.is_name_current(ino, row.get(3)?, &bytes, ver)?
                    {
                        self.work.push(Work::Place(place));
                    }
                }
                _ => {}
            }
            if !self.follow(bounds)? {
                return Ok((upto, false));
            }
            if self.blocked {
                self.list.truncate(before);
                return Ok((upto, false));
            }
            upto = ver;
            if self.is_full(bounds) {
                return Ok((upto, false));
            }
        }
        Ok((upto, true))
    }

    /// Looks at the registers that others changed, too.
    pub(super) fn scan_frozen(&mut self, bounds: &Bounds) -> Result<()> {
        for register in self.frozen.keys() {
            match register {
                Register::Name { parent, name } => {
                    self.work.push(Work::Place((*parent, name.clone())));
                }
                Register::Data(node) => {
                    let ino = self.ino(*node)?;
                    self.work.extend(ino.map(Work::Node));
                }
                Register::Meta(_) | Register::Xattr { .. } => {}
            }
            if !self.follow(bounds)? || self.is_full(bounds) {
                break;
            }
        }
        Ok(())
    }

    /// Looks at files whose content is not sealed, whatever the log says.
    pub(super) fn scan_unsealed(&mut self) -> Result<()> {
        let mut find = self.local.db.prepare_cached("SELECT ino FROM staging")?;
        let mut rows = find.query([])?;
        while let Some(row) = rows.next()? {
            self.work.push(Work::Node(Ino(uint(row.get(0)?))));
            self.follow(&Bounds::NONE)?;
        }
        Ok(())
    }

    fn is_node_current(&self, ino: Ino, ver: Ver) -> Result<bool> {
        let mut find = self
            .local
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM node WHERE ino = ? AND ver = ?)")?;
        Ok(find.query_row([int(ino.0), int(ver)], |r| r.get(0))?)
    }

    fn is_name_current(&self, parent: Ino, hash: i64, name: &[u8], ver: Ver) -> Result<bool> {
        let mut find = self.local.db.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM name WHERE parent = ? AND hash = ? AND name = ? AND ver = ?)",
        )?;
        let row = params![int(parent.0), hash, name, int(ver)];
        Ok(find.query_row(row, |r| r.get(0))?)
    }
}
