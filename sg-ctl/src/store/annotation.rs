//! What is kept about the objects of a policy besides what they mean: ids that others know them by,
//! tags, and whatever else a front of the controller wants to remember. The store keeps it and knows
//! nothing of it. The notes of an object go with it.

use std::collections::BTreeMap;

use crate::policy::names::{
    InterfaceId, InterfaceName, PrefixListId, PrefixListName, VpcId, VpcName,
};

/// What is noted about one object, by name.
pub type Notes = BTreeMap<String, String>;

/// One thing to note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotation {
    /// Sets or removes a note of an object.
    Note {
        /// The object's id.
        object: String,
        /// What the note is called.
        name: String,
        /// Its text; none removes it.
        value: Option<String>,
    },
    /// Removes all notes of an object.
    Forget {
        /// The object's id.
        object: String,
    },
    /// Gives a VPC another id.
    IdentifyVpc(VpcName, VpcId),
    /// Gives a prefix list another id; one that another VPC's list has makes them one.
    IdentifyPrefixList(VpcName, PrefixListName, PrefixListId),
    /// Gives an interface another id.
    IdentifyInterface(VpcName, InterfaceName, InterfaceId),
}

impl Annotation {
    /// Sets a note.
    pub fn set(object: impl ToString, name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Note {
            object: object.to_string(),
            name: name.into(),
            value: Some(value.into()),
        }
    }

    /// Removes a note.
    pub fn unset(object: impl ToString, name: impl Into<String>) -> Self {
        Self::Note {
            object: object.to_string(),
            name: name.into(),
            value: None,
        }
    }

    /// Removes all notes of an object.
    pub fn forget(object: impl ToString) -> Self {
        Self::Forget {
            object: object.to_string(),
        }
    }

    /// The object that is noted about; an id is not noted about anything.
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Note { object, .. } | Self::Forget { object } => Some(object),
            _ => None,
        }
    }
}

/// All that is kept about a policy's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotated {
    /// The id of each VPC.
    pub vpcs: BTreeMap<VpcName, VpcId>,
    /// The id of each prefix list.
    pub prefix_lists: BTreeMap<(VpcName, PrefixListName), PrefixListId>,
    /// The id of each interface.
    pub interfaces: BTreeMap<(VpcName, InterfaceName), InterfaceId>,
    /// The notes of each object that has any, by its id.
    pub notes: BTreeMap<String, Notes>,
}

impl Annotated {
    /// Makes an annotation, as the store does.
    pub fn make(&mut self, annotation: &Annotation) {
        match annotation.clone() {
            Annotation::Note {
                object,
                name,
                value: Some(value),
            } => {
                self.notes.entry(object).or_default().insert(name, value);
            }
            Annotation::Note {
                object,
                name,
                value: None,
            } => {
                if let Some(notes) = self.notes.get_mut(&object) {
                    notes.remove(&name);
                    if notes.is_empty() {
                        self.notes.remove(&object);
                    }
                }
            }
            Annotation::Forget { object } => {
                self.notes.remove(&object);
            }
            Annotation::IdentifyVpc(vpc, id) => {
                self.vpcs.insert(vpc, id);
            }
            Annotation::IdentifyPrefixList(vpc, list, id) => {
                self.prefix_lists.insert((vpc, list), id);
            }
            Annotation::IdentifyInterface(vpc, interface, id) => {
                self.interfaces.insert((vpc, interface), id);
            }
        }
    }
}
