// Keeps the shell so that the installed app opens without a network. Readings are never kept:
// /api, /oidc and everything that is not a file of this build goes to the network alone.
const CACHE = 'aquacis-__VERSION__'
const FILES = __FILES__

self.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)))
  self.skipWaiting()
})

self.addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((n) => n !== CACHE).map((n) => caches.delete(n))))
      .then(() => self.clients.claim()),
  )
})

const SERVER = /^\/(api|oidc|\.well-known|metrics|healthz|readyz|openapi\.json|docs)(\/|$)/

self.addEventListener('fetch', (event) => {
  const { request } = event
  const url = new URL(request.url)
  if (request.method !== 'GET' || url.origin !== self.location.origin) return
  if (SERVER.test(url.pathname)) return
  if (request.mode === 'navigate') {
    // The network first: a new build is seen at the next load, the kept shell only when offline.
    event.respondWith(fetch(request).catch(() => caches.match('/')))
  } else if (FILES.includes(url.pathname)) {
    event.respondWith(caches.match(request).then((kept) => kept ?? fetch(request)))
  }
})
