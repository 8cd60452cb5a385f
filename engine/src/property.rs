//! Properties: small values that a program keeps with a replica, such as where
//! its hub is. They are not part of the tree, and do not travel.

use rusqlite::params;

use crate::db::{self, meta_get};
use crate::replica::Replica;
use crate::{FsError, Result};

/// Longest name and longest value of a property, in bytes.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 64 << 10;

/// Before the names of properties in the table that they share with others.
const PREFIX: &str = "property.";

impl Replica {
    /// A property, if it is set.
    ///
    /// # Errors
    ///
    /// What the database says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cairn_engine::Replica;
    /// let replica = Replica::in_memory()?;
    /// replica.set_property("color", Some(b"blue"))?;
    /// assert_eq!(replica.property("color")?.as_deref(), Some(&b"blue"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn property(&self, name: &str) -> Result<Option<Vec<u8>>> {
        meta_get(&self.inner.db.reader(), &key(name)?)
    }

    /// Sets a property, or removes it, durably.
    ///
    /// # Errors
    ///
    /// [`FsError::TooLarge`] for a name of more than 255 bytes or a value of more
    /// than 64 KiB; what the disk says.
    pub fn set_property(&self, name: &str, value: Option<&[u8]>) -> Result<()> {
        let key = key(name)?;
        let db = self.inner.db.writer();
        match value {
            Some(value) if value.len() > VALUE_MAX => {
                return Err(FsError::TooLarge("the value of a property"));
            }
            Some(value) => db::meta_set(&db, &key, value)?,
            None => {
                db.prepare_cached("DELETE FROM meta WHERE key = ?")?
                    .execute(params![key])?;
            }
        }
        self.inner.sync_database()
    }
}

fn key(name: &str) -> Result<String> {
    if name.len() > NAME_MAX {
        return Err(FsError::TooLarge("the name of a property"));
    }
    Ok(format!("{PREFIX}{name}"))
}
