//! Organisations, their projects, and the inspection of tokens (`docs/protocol/cognite.md` A1, A5).
//!
//! In the vendor's cloud an organisation has projects. Here each has exactly one, with its slug,
//! because the clients ask for it first, to learn which organisation they are in.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{OrgId, Protocol, limits};
use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;
use rules::identity::Identity;
use rules::identity::model::Org;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Account;
use super::cursor::Cursors;
use super::error::{self, Error};
use super::{Asked, Page};

/// An organisation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// Its slug.
    id: String,
    /// The slug of the organisation above; absent at the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parent_id: Option<String>,
    /// Its name for people.
    name: String,
    /// Whether organisations may be made below it, in TR50's `org.create`.
    admins_can_create_orgs_in_subtree: bool,
    /// Never: an organisation has one project.
    admins_can_create_projects_in_subtree: bool,
    /// None: there is no other server.
    allowed_clusters: [&'static str; 0],
}

/// A project in the list of an organisation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedProject {
    /// The organisation's slug.
    name: String,
    /// Where its API is: this server, as the caller addressed it.
    api_url: String,
    /// Always: there is no other.
    is_default: bool,
}

/// The projects of an organisation.
#[derive(Serialize, ToSchema)]
pub struct ProjectList {
    items: [ListedProject; 1],
}

/// A project.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// The organisation's name for people.
    name: String,
    /// The project's name in addresses: the organisation's slug.
    url_name: String,
    /// The slug of the organisation that has it.
    organization: String,
    /// About user profiles.
    user_profiles_configuration: UserProfiles,
}

/// About user profiles, the older form of principals.
#[derive(Serialize, ToSchema)]
pub struct UserProfiles {
    /// Never: there are principals.
    enabled: bool,
}

/// What a token is good for.
#[derive(Serialize, ToSchema)]
pub struct Inspection {
    /// The principal's id.
    subject: String,
    /// Where the caller may work: the organisation that the session is in, the home, and those with
    /// a membership. What lies below them is not listed.
    projects: Vec<InspectedProject>,
    /// None: rights are those of the roles, which this dialect does not know.
    capabilities: [&'static str; 0],
}

/// A project that a token is good for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedProject {
    /// Its name in addresses.
    project_url_name: String,
    /// None: there are no groups.
    groups: [i64; 0],
}

/// Shows an organisation. Access as for its principals.
#[utoipa::path(
    get,
    path = "/api/v1/orgs/{org}",
    operation_id = "getOrg",
    tag = "Organisations",
    params(("org" = String, Path, description = "The organisation's slug.")),
    responses(
        (status = 200, body = Organization, description = "The organisation."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body, description = "No access, or no such organisation."),
    )
)]
pub fn org(asked: &Asked<'_>, org: &str) -> Result<Organization, Error> {
    let org = asked.org_seen(org)?;
    Ok(Organization::of(asked.app.identity(), &org))
}

/// Lists the organisations right below one, by id, a thousand on a page. Access as for its
/// principals.
#[utoipa::path(
    get,
    path = "/api/v1/orgs/{org}/orgs",
    operation_id = "listChildOrgs",
    tag = "Organisations",
    params(
        ("org" = String, Path, description = "The organisation's slug."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before."),
    ),
    responses(
        (status = 200, body = Page<Organization>, description = "A page."),
        (status = 400, body = error::Body, description = "`cursor` is wrong."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body, description = "No access, or no such organisation."),
    )
)]
pub fn below(asked: &Asked<'_>, org: &str) -> Result<Page<Organization>, Error> {
    let org = asked.org_seen(org)?;
    let cursors = Cursors::new(asked.secret, "orgs", org.id, &[]);
    let after = cursors.read(&asked.query)?.map(OrgId::from_bytes);
    let (identity, limit) = (&asked.app.identity(), limits::ORGS_PAGE);
    let found = identity.orgs_below_page(org.id, after, limit + 1);
    let cursor = |last: &Arc<Org>| cursors.write(last.id.as_bytes());
    Ok(Page::of(found, limit, cursor, |org| Organization::of(identity, org)))
}

/// Lists the projects of an organisation: the one that it has. Access as for its principals.
#[utoipa::path(
    get,
    path = "/api/v1/orgs/{org}/projects",
    operation_id = "listProjects",
    tag = "Organisations",
    params(("org" = String, Path, description = "The organisation's slug.")),
    responses(
        (status = 200, body = ProjectList, description = "Its project."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body, description = "No access, or no such organisation."),
    )
)]
pub fn projects(asked: &Asked<'_>, org: &str) -> Result<ProjectList, Error> {
    let org = asked.org_seen(org)?;
    let api_url = own_url(asked);
    let project = ListedProject { name: org.slug.clone(), api_url, is_default: true };
    Ok(ProjectList { items: [project] })
}

/// Shows a project, which every client asks for first. Access as for the organisation's
/// principals; also for whoever is logged into it, be it an application that is restricted to its
/// own thing.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{project}",
    operation_id = "getProject",
    tag = "Organisations",
    params(("project" = String, Path, description = "The organisation's slug.")),
    responses(
        (status = 200, body = Project, description = "The project."),
        (status = 401, body = error::Body, description = "No session and no token."),
        (status = 403, body = error::Body, description = "No access, or no such project."),
    )
)]
pub fn project(asked: &Asked<'_>, project: &str) -> Result<Project, Error> {
    let identity = &asked.app.identity();
    let org = asked.org_where(project, |caller, org| {
        caller.is_logged_into(org) || caller.sees(identity, org)
    })?;
    Ok(Project {
        name: org.name.clone(),
        url_name: org.slug.clone(),
        organization: org.slug.clone(),
        user_profiles_configuration: UserProfiles { enabled: false },
    })
}

/// Says whose token this is, and what it is good for.
#[utoipa::path(
    get,
    path = "/api/v1/token/inspect",
    operation_id = "inspectToken",
    tag = "Organisations",
    responses(
        (status = 200, body = Inspection, description = "The caller, and where the caller may work."),
        (status = 401, body = error::Body, description = "No session and no token."),
    )
)]
pub fn inspect(asked: &Asked<'_>) -> Result<Inspection, Error> {
    let caller = &asked.caller;
    let mut orgs = vec![caller.org.id];
    if let Account::User(user) = &caller.account {
        orgs.push(user.home);
        orgs.extend(user.memberships.iter().map(|held| held.org));
    }
    // Each once, ordered by name.
    let slug = |org: OrgId| asked.app.identity().org(org).map(|org| (org.slug.clone(), ()));
    let slugs: BTreeMap<String, ()> = orgs.into_iter().filter_map(slug).collect();
    let project = |slug| InspectedProject { project_url_name: slug, groups: [] };
    Ok(Inspection {
        subject: caller.account.id(),
        projects: slugs.into_keys().map(project).collect(),
        capabilities: [],
    })
}

impl Organization {
    fn of(identity: &Identity, org: &Arc<Org>) -> Self {
        let parent = org.parent.and_then(|parent| identity.org(parent));
        Self {
            id: org.slug.clone(),
            parent_id: parent.map(|parent| parent.slug.clone()),
            name: org.name.clone(),
            admins_can_create_orgs_in_subtree: !org.no_sub_orgs,
            admins_can_create_projects_in_subtree: false,
            allowed_clusters: [],
        }
    }
}

/// This server as the caller addressed it; empty if the request does not say.
fn own_url(asked: &Asked<'_>) -> String {
    let scheme = if asked.conn.protocol == Protocol::Https { "https" } else { "http" };
    match authority(asked.request) {
        Some(authority) => format!("{scheme}://{authority}"),
        None => String::new(),
    }
}

fn authority<T>(request: &Request<T>) -> Option<Authority> {
    let host = || request.headers().get(HOST)?.to_str().ok()?.parse().ok();
    request.uri().authority().cloned().or_else(host)
}
