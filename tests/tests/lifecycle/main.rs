//! Boot, upgrade, loss and removal: how protection comes, stays and goes.

mod a_boot_restores_protection;
mod a_lost_policy_opens_nothing;
mod a_state_folder_need_not_be_writable;
mod an_upgrade_cuts_nobody;
mod enforcement_needs_no_process;
mod filters_protect_where_links_are_missing;
mod protection_is_not_lost_by_mistake;
mod the_image_runs_alone;
mod the_package_leaves_nothing;
mod the_shipped_program_measures_nothing;
