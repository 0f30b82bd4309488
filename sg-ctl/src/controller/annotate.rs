//! What is noted about objects together with a change of them.

use std::collections::BTreeSet;

use super::error::Result;
use super::{Annotation, Controller, Revision, Store};

impl Controller {
    /// Notes something with the next change, in the same transaction. A change that is not made leaves
    /// no note.
    pub fn annotate_next(&mut self, annotations: Vec<Annotation>) {
        self.annotations = annotations;
    }

    /// Notes something by itself. The policy and the kernel stay as they are.
    pub fn annotate(&mut self, annotations: &[Annotation]) -> Result<Revision> {
        let stored = self
            .store
            .commit_annotated(self.revision, &[], annotations)?;
        self.revision = stored;
        Ok(stored)
    }
}

/// What makes the notes as they were.
pub(super) fn inverse(store: &dyn Store, annotations: &[Annotation]) -> Result<Vec<Annotation>> {
    let objects: BTreeSet<&str> = annotations.iter().filter_map(Annotation::object).collect();
    let mut inverse = Vec::new();
    for object in objects {
        inverse.push(Annotation::forget(object));
        for (name, value) in store.notes(object)? {
            inverse.push(Annotation::set(object, name, value));
        }
    }
    Ok(inverse)
}
