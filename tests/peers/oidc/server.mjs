// A certified OpenID provider (npm oidc-provider) and a protected resource behind it, in one process.
//
//   node server.mjs CERT.pem KEY.pem CLIENT.pem CA.pem
//
// Listens with TLS on a loopback port of the kernel's choice and prints one line,
// `READY {"port":…,"issuer":"https://localhost:…","keys":{ALG: PEM or JWK}}`. Ends when its standard input closes, so that it
// never outlives the test that started it.
//
//   /token          the provider's token endpoint (client_credentials, refresh_token, RFC 7523, RFC 8693, RFC 8707 resources)
//   /auth, /device  logins, for which any name and password will do
//   /api/…          the protected resource: verifies the token and what it is bound to, the client's certificate or the proof of
//                   a key; echoes what it received
//   GET /stats      how many token requests were granted and refused, and why; likewise of proofs at the resource
//   POST /revoke    every token accepted so far is void from now on
//   POST /rotate    provider and resource take other nonces in proofs from now on
//   GET /refresh-token?client=ID&jkt=…   a refresh token, as a login gives it
//   GET /subject-token   an access token that can be exchanged

import { X509Certificate, createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createLocalJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider'; // 8.x: the last that runs on Node 18 and 20 (Debian 12 and 13)
import DPoPNonces from './node_modules/oidc-provider/lib/helpers/dpop_nonces.js';
import inside from './node_modules/oidc-provider/lib/helpers/weak_cache.js';
import { ProofJudge } from './dpop.mjs';
import { addGrants, grantTypes, refreshToken } from './grants.mjs';

// The keys of clients that sign, made anew; the READY line tells the private ones to the test.
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const clientKeys = {
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ES384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  RS256: rsa,
  PS256: rsa,
  EdDSA: generateKeyPairSync('ed25519'),
};

// The server's own pair, the certificate of a client, and who may issue certificates to clients.
const [cert, key, clientCert, ca] = process.argv.slice(2).map((path) => readFileSync(path));
const x5c = [new X509Certificate(clientCert).raw.toString('base64')];
const x5tS256 = (certificate) => createHash('sha256').update(certificate.raw).digest('base64url');

const bound = { tls_client_certificate_bound_access_tokens: true };

// The clients. tests/it/oidc.rs knows them too.
const publicJwk = (alg) => ({ ...clientKeys[alg].publicKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg });
const clients = [
  { client_id: 'poster', client_secret: 'not-a-secret', token_endpoint_auth_method: 'client_secret_post' },
  {
    // Every character here breaks a client that forgets the form-encoding of RFC 6749 section 2.3.1.
    client_id: 'awkward client %2B',
    client_secret: 'not a secret: 100%+/?&=~%3A"\\',
    token_endpoint_auth_method: 'client_secret_basic',
  },
  ...Object.keys(clientKeys).map((alg) => ({
    client_id: `signer-${alg}`,
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: alg,
    jwks: { keys: [publicJwk(alg)] },
  })),
  ...['HS256', 'HS384', 'HS512'].map((alg) => ({
    client_id: `macer-${alg}`,
    client_secret: 'not-a-secret-but-long-enough-for-it, for sixty-four bytes of it',
    token_endpoint_auth_method: 'client_secret_jwt',
    token_endpoint_auth_signing_alg: alg,
  })),
  { client_id: 'public', token_endpoint_auth_method: 'none' },
  {
    client_id: 'binder', client_secret: 'not-a-secret', token_endpoint_auth_method: 'client_secret_post',
    dpop_bound_access_tokens: true,
  },
  // By certificate: this very one, whoever has this name from the CA, and one beside a secret.
  {
    client_id: 'self-signed',
    token_endpoint_auth_method: 'self_signed_tls_client_auth',
    jwks: { keys: [{ ...new X509Certificate(clientCert).publicKey.export({ format: 'jwk' }), x5c }] },
    ...bound,
  },
  { client_id: 'named', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_dns: 'client.example.test', ...bound },
  { client_id: 'poster-bound', client_secret: 'not-a-secret', token_endpoint_auth_method: 'client_secret_post', ...bound },
  {
    client_id: 'public-binder', token_endpoint_auth_method: 'none', dpop_bound_access_tokens: true,
    grant_types: ['refresh_token', 'authorization_code'],
  },
  {
    client_id: 'rotator', client_secret: 'not-a-secret', token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['refresh_token', 'authorization_code'],
  },
].map((client) => ({ grant_types: ['client_credentials', ...grantTypes], response_types: [], redirect_uris: [], ...client }))
  .map((client) => (client.grant_types.includes('authorization_code')
    ? { ...client, response_types: ['code'], redirect_uris: ['https://app.example.test/'] } : client));

// Where users log in: a native application without a secret (RFC 8252). Its refresh tokens rotate.
clients.push({
  client_id: 'native',
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback'],
});

// The resource indicators. What is asked for without one is an opaque token.
const resources = {
  'https://api.example.test/jwt': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } },
  'https://api.example.test/opaque': { accessTokenFormat: 'opaque' },
};

const signing = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = { kid: 'peer', alg: 'RS256', use: 'sig' };
const publicKeys = createLocalJWKSet({ keys: [{ ...signing.publicKey.export({ format: 'jwk' }), ...jwk }] });

const judge = new ProofJudge();
const stats = { granted: 0, refused: 0, errors: [], methods: [], proofs: judge };
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

function makeProvider(issuer) {
  const provider = new Provider(issuer, {
    clients,
    clientAuthMethods: [
      'none', 'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
      'self_signed_tls_client_auth', 'tls_client_auth',
    ],
    jwks: { keys: [{ ...signing.privateKey.export({ format: 'jwk' }), ...jwk }] },
    scopes: ['openid', 'offline_access', 'read', 'write'],
    cookies: { keys: ['not-a-secret'] },
    // Access tokens of users live for three seconds, so that a test sees several rotations.
    ttl: { ClientCredentials: 600, AccessToken: 3, RefreshToken: 600, Grant: 600 },
    rotateRefreshToken: true,
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    enabledJWA: {
      clientAuthSigningAlgValues: ['HS256', 'HS384', 'HS512', 'RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'],
      dPoPSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'],
    },
    features: {
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        selfSignedTlsClientAuth: true,
        tlsClientAuth: true,
        getCertificate: (ctx) => ctx.req.socket.getPeerX509Certificate(),
        certificateAuthorized: (ctx) => ctx.req.socket.authorized,
        certificateSubjectMatches: (ctx, _property, expected) =>
          ctx.req.socket.getPeerCertificate().subjectaltname === `DNS:${expected}`,
      },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo(_ctx, resource) {
          const format = resources[resource];
          if (!format) throw new errors.InvalidTarget();
          return { scope: 'read write', audience: resource, accessTokenTTL: 600, ...format };
        },
      },
    },
  });
  addGrants(provider, Object.keys(clientKeys).map(publicJwk), issuer);
  provider.on('grant.success', (ctx) => {
    stats.granted += 1;
    stats.methods.push(ctx.oidc.client.clientAuthMethod);
  });
  provider.on('grant.error', (_ctx, error) => {
    stats.refused += 1;
    stats.errors.push(`${error.error}: ${error.error_detail ?? error.error_description}`);
  });
  return provider;
}

const seen = new Set(); // SHA-256 of every token that was accepted
const revoked = new Set(); // … and of those that /revoke voided

// What the resource says about the presented token; throws what makes it a 401.
async function verify(provider, token, certificate) {
  const bound = (thumbprint) => {
    if (thumbprint && (!certificate || x5tS256(certificate) !== thumbprint)) throw new Error('bound to another certificate');
    return { bound: thumbprint };
  };
  if (revoked.has(sha256(token))) throw new Error('revoked');
  if (token.split('.').length === 3) {
    const { payload } = await jwtVerify(token, publicKeys, { issuer: provider.issuer, typ: 'at+jwt' });
    const { client_id, aud: audience, scope, cnf } = payload;
    return { format: 'jwt', client_id, audience, scope, jkt: cnf?.jkt, ...bound(cnf?.['x5t#S256']) };
  }
  const found = (await provider.ClientCredentials.find(token)) ?? (await provider.AccessToken.find(token));
  if (!found) throw new Error('unknown or expired');
  const { clientId: client_id, aud: audience, scope } = found;
  return { format: 'opaque', client_id, audience, scope, jkt: found.jkt, ...bound(found['x5t#S256']) };
}

const json = (response, status, value, headers = {}) => {
  const body = JSON.stringify(value);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers });
  response.end(body);
};

async function resource(provider, request, response) {
  const body = [];
  for await (const chunk of request) body.push(chunk);
  const bytes = Buffer.concat(body);

  const headers = [];
  const credentials = [];
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const [name, value] = request.rawHeaders.slice(i, i + 2);
    const secret = name.toLowerCase() === 'authorization';
    if (secret) credentials.push(value);
    headers.push([name, secret ? `sha256:${sha256(value)}` : value]);
  }
  const challenge = (why) =>
    json(response, 401, { error: why }, { 'www-authenticate': `Bearer error="invalid_token", error_description="${why}"` });
  if (credentials.length !== 1) return challenge(`${credentials.length} authorization headers`);
  const [, scheme, token] = /^(Bearer|DPoP) ([\x21-\x7e]+)$/.exec(credentials[0]) ?? [];
  if (!token) return challenge('neither a bearer nor a bound token');

  let facts;
  try {
    facts = await verify(provider, token, request.socket.getPeerX509Certificate());
    if ((scheme === 'DPoP') !== (facts.jkt !== undefined)) throw new Error(`not to be sent as ${scheme}`);
  } catch (error) {
    return challenge(error.message);
  }
  if (facts.jkt) {
    response.setHeader('dpop-nonce', judge.nonce);
    try {
      await judge.verify(request, `${provider.issuer}${request.url}`, token, facts.jkt);
    } catch ({ code, message }) {
      return json(response, 401, { error: message }, { 'www-authenticate': `DPoP error="${code}", algs="ES256 EdDSA"` });
    }
  }
  seen.add(sha256(token));
  return json(response, 200, {
    method: request.method,
    target: request.url,
    headers,
    body: { length: bytes.length, sha256: sha256(bytes) },
    token: { ...facts, fingerprint: sha256(token).slice(0, 8) },
  });
}

// Who comes without a certificate, or with one of a stranger's, is let in: what that means is decided above.
const server = createServer({ cert, key, ca, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.2' });
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const issuer = `https://localhost:${port}`;
  const provider = makeProvider(issuer);
  const callback = provider.callback();
  server.on('request', (request, response) => {
    const path = request.url.split('?')[0];
    if (path === '/stats') return json(response, 200, stats);
    if (path === '/revoke' && request.method === 'POST') {
      seen.forEach((hash) => revoked.add(hash));
      return json(response, 200, { revoked: revoked.size });
    }
    if (path === '/rotate' && request.method === 'POST') {
      judge.rotate();
      inside(provider).DPoPNonces = new DPoPNonces(randomBytes(32));
      return json(response, 200, {});
    }
    if (path === '/subject-token') {
      const made = provider.Client.find('poster').then((client) => new provider.ClientCredentials({ client }).save());
      return made.then((token) => json(response, 200, { token })).catch((error) => response.destroy(error));
    }
    if (path === '/refresh-token') {
      const query = new URL(request.url, issuer).searchParams;
      const made = refreshToken(provider, query.get('client'), query.get('jkt') ?? undefined);
      return made.then((token) => json(response, 200, { token })).catch((error) => response.destroy(error));
    }
    if (path === '/api' || path.startsWith('/api/')) {
      return resource(provider, request, response).catch((error) => response.destroy(error));
    }
    return callback(request, response);
  });
  const keys = {
    ES256: clientKeys.ES256.privateKey.export({ type: 'sec1', format: 'pem' }),
    ES384: clientKeys.ES384.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    RS256: clientKeys.RS256.privateKey.export({ type: 'pkcs1', format: 'pem' }),
    PS256: JSON.stringify(clientKeys.PS256.privateKey.export({ format: 'jwk' })),
    EdDSA: clientKeys.EdDSA.privateKey.export({ type: 'pkcs8', format: 'pem' }),
  };
  console.log(`READY ${JSON.stringify({ port, issuer, keys })}`);
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
