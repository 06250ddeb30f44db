//! The extractor through which every route of a tenant goes.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use enigma_core::UserId;
use enigma_core::ports::Background;
use enigma_core::tenant::{
    AccessError, Caller, ClientAddress, Presented, RequestIdentity, Scope, Tenant, TenantContext, UserHints,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use crate::app::App;
use crate::error::{ApiError, ErrorCode};
use crate::overload::{Place, Seat};
use crate::request_info::RequestInfo;
use crate::validation::{Issue, Issues};

/// Headers that say who asks for what, and so may be there once only.
const SINGLE: [&str; 7] =
    ["host", "x-tenant-id", "x-api-key", "authorization", "x-user-id", "x-session-id", "idempotency-key"];
const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const USER: HeaderName = HeaderName::from_static("x-user-id");

/// A request that was tied to a tenant and authenticated for it.
pub(crate) struct Access {
    pub(crate) context: TenantContext,
    background: Arc<dyn Background>,
    tenant: Arc<Tenant>,
    seat: Seat,
    user_header: Result<Option<UserId>, Issue>,
}

impl Access {
    /// Checks a scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), ApiError> {
        Ok(self.context.require(scope)?)
    }

    /// Takes a place among the answers under way, for as long as it is held; nothing, where the host has no bound.
    pub(crate) fn stream(&self, app: &App) -> Result<Option<Place>, ApiError> {
        let Some(overload) = app.overload() else { return Ok(None) };
        overload.stream(&self.tenant, &*app.ports().clock).map(Some)
    }

    /// From now on the request counts as an answer under way, and no longer as a request in work.
    pub(crate) fn sit(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.seat.hold(place);
        }
    }

    /// Runs work that outlives the response, and counts as what the request counts as now.
    pub(crate) fn background(&self) -> Arc<dyn Background> {
        self.seat.background(&self.background)
    }

    /// The caller, given what the body says of the user.
    pub(crate) fn caller(&self, body: Option<UserId>, issues: &mut Issues) -> Caller {
        if let Err(issue) = &self.user_header {
            issues.add(issue.clone());
        }
        self.named(body)
    }

    /// The caller as far as the headers tell, for a request whose body was refused.
    pub(crate) fn caller_without_body(&self) -> Caller {
        self.named(None)
    }

    fn named(&self, body: Option<UserId>) -> Caller {
        self.context.caller(UserHints { body, header: self.user_header.clone().unwrap_or_default() })
    }
}

impl FromRequestParts<App> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let background = parts.extensions.get::<Arc<dyn Background>>().cloned().ok_or(ErrorCode::Internal)?;
        let unknown = || ClientAddress::new("unknown");
        let address = parts.extensions.get::<ClientAddress>().cloned().unwrap_or_else(unknown);
        let info = RequestInfo::from_request_parts(parts, app).await?;
        let headers = &parts.headers;
        // Two programs on the way that each believe another one of two copies would see two tenants.
        if headers.len() > headers.keys_len()
            && let Some(name) = SINGLE.iter().find(|name| headers.get_all(**name).iter().nth(1).is_some())
        {
            return Err(ApiError::invalid(&[Issue::new(name, "must not be there twice")]));
        }
        let identity = RequestIdentity {
            // A header that is no text names no tenant that could exist.
            tenant: headers.get(TENANT).map(|value| value.to_str().unwrap_or("")),
            host: host(parts),
            presented: presented(headers)?,
        };
        let (resolver, overload) = (&app.ports().resolver, app.overload());
        let clock = &*app.ports().clock;
        let arriving = overload.map(|overload| overload.arrive(clock)).transpose()?;
        let tenant = resolver.resolve(&identity).await?;
        // From here on the tenant's CORS policy applies, also to errors.
        let _ = info.tenant.set(Arc::clone(&tenant));
        let presented = identity.presented.as_ref();
        let context = resolver.authenticate(Arc::clone(&tenant), presented, &address, clock.now()).await?;
        if let Some(overload) = overload {
            info.seat.hold(overload.request(&tenant, clock)?);
        }
        // Not before the request is counted as its tenant's.
        drop(arriving);
        let seat = info.seat.clone();
        Ok(Self { context, background, tenant, seat, user_header: user_header(headers) })
    }
}

/// The host that the request was sent to: that of the URL (HTTP/2), else the `Host` header.
pub(crate) fn host(parts: &Parts) -> Option<&str> {
    parts
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()))
        // User information in front of the host is never part of it.
        .map(|authority| authority.rsplit('@').next().unwrap_or(authority))
}

fn presented(headers: &HeaderMap) -> Result<Option<Presented>, AccessError> {
    if let Some(key) = headers.get(API_KEY) {
        return Ok(Some(Presented::new(key.to_str().map_err(|_| AccessError::BadCredentials)?)));
    }
    let Some(authorization) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = authorization.to_str().map_err(|_| AccessError::BadCredentials)?;
    let (scheme, secret) = text.split_once(' ').ok_or(AccessError::BadCredentials)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AccessError::BadCredentials);
    }
    Ok(Some(Presented::new(secret.trim())))
}

fn user_header(headers: &HeaderMap) -> Result<Option<UserId>, Issue> {
    let Some(value) = headers.get(USER) else { return Ok(None) };
    let user = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| UserId::new(text).ok());
    user.map(Some).ok_or_else(|| Issue::new("x-user-id", "must be 1 to 256 characters without control characters"))
}
