// What oidc-provider does not do by itself: refresh tokens without a browser, and the grants of RFC 7523 and RFC 8693.

import { createLocalJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const grantTypes = [JWT_BEARER, TOKEN_EXCHANGE];

// A refresh token of a user who has consented, as a login would have given it.
export async function refreshToken(provider, clientId, jkt) {
  const client = await provider.Client.find(clientId);
  const grant = new provider.Grant({ accountId: 'ann', clientId });
  grant.addOIDCScope('openid offline_access read');
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    client, accountId: 'ann', grantId, gty: 'authorization_code', scope: 'openid offline_access read', jkt,
  });
  return token.save();
}

async function issue(ctx, more) {
  const { provider, client, params } = ctx.oidc;
  const token = new provider.ClientCredentials({ client, scope: params.scope });
  const value = await token.save();
  ctx.body = { access_token: value, token_type: 'Bearer', expires_in: token.expiration, scope: token.scope, ...more };
}

// Assertions are judged by the key of the client of that name; each is good once.
export function addGrants(provider, keys, issuer) {
  const seen = new Set();
  provider.registerGrantType(JWT_BEARER, async (ctx, next) => {
    const audience = [issuer, `${issuer}/token`];
    const key = createLocalJWKSet({ keys });
    const { payload } = await jwtVerify(ctx.oidc.params.assertion ?? '', key, {
      audience, requiredClaims: ['iss', 'sub', 'exp', 'iat', 'jti'], clockTolerance: 0,
    }).catch((error) => { throw new errors.InvalidGrant(error.message); });
    if (seen.has(payload.jti)) throw new errors.InvalidGrant('the assertion was used before');
    seen.add(payload.jti);
    ctx.oidc.params.scope = payload.scope;
    await issue(ctx, {});
    await next();
  }, ['assertion', 'scope']);

  provider.registerGrantType(TOKEN_EXCHANGE, async (ctx, next) => {
    const { subject_token: subject, subject_token_type: type, requested_token_type: requested } = ctx.oidc.params;
    if (type !== 'urn:ietf:params:oauth:token-type:access_token') throw new errors.InvalidRequest('subject_token_type');
    if (requested && requested !== type) throw new errors.InvalidRequest('requested_token_type');
    if (!(await provider.ClientCredentials.find(subject ?? ''))) throw new errors.InvalidGrant('unknown subject_token');
    await issue(ctx, { issued_token_type: type });
    await next();
  }, ['subject_token', 'subject_token_type', 'requested_token_type', 'scope', 'audience']);
}
