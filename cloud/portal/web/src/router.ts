/** The pages, and the rule that nobody sees one without having signed in. */
import { createRouter, createWebHistory } from 'vue-router'
import { get } from '@/api/client'
import type { Me } from '@/api/types'
import { LOOKS, may, me, OPERATES, OVERSEES, setMe, signedIn, signIn } from '@/session/session'

declare module 'vue-router' {
  interface RouteMeta {
    title: string
    open?: boolean
    roles?: readonly string[]
  }
}

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    {
      path: '/',
      name: 'flow',
      component: () => import('@/pages/flow/FlowPage.vue'),
      meta: { title: 'nav.flow', roles: OVERSEES },
    },
    {
      path: '/gateways/:id([a-z0-9-]+)',
      name: 'gateway',
      component: () => import('@/pages/gateway/GatewayPage.vue'),
      meta: { title: 'gateway.title', roles: OPERATES },
    },
    {
      path: '/medidores',
      name: 'meters',
      component: () => import('@/pages/MetersPage.vue'),
      meta: { title: 'nav.meters' },
    },
    {
      path: '/medidores/:key(\\d+)',
      name: 'meter',
      component: () => import('@/pages/meter/MeterPage.vue'),
      meta: { title: 'meter.title' },
    },
    {
      path: '/alertas',
      name: 'alerts',
      component: () => import('@/pages/AlertsPage.vue'),
      meta: { title: 'nav.alerts', roles: LOOKS },
    },
    {
      path: '/rechazos',
      name: 'rejects',
      component: () => import('@/pages/RejectsPage.vue'),
      meta: { title: 'nav.rejects', roles: OPERATES },
    },
    {
      path: '/entrar',
      name: 'sign-in',
      component: () => import('@/pages/SignInPage.vue'),
      meta: { title: 'signIn.title', open: true },
    },
    {
      path: '/:path(.*)*',
      name: 'nowhere',
      component: () => import('@/pages/NowherePage.vue'),
      meta: { title: 'nowhere.title' },
    },
  ],
  scrollBehavior: (to, _from, saved) => saved ?? (to.hash ? { el: to.hash } : { top: 0 }),
})

router.beforeEach(async (to, from) => {
  if (to.meta.open) return true
  if (!signedIn()) {
    try {
      await signIn(to.fullPath)
    } catch {
      // The sign-in page says what is wrong and offers to try again.
      return { name: 'sign-in', query: { volver: to.fullPath }, replace: from.name === undefined }
    }
  }
  if (me.value === null) await learnWhoIAm()
  // The first page is the flow; who may not see it begins with the meters.
  return to.name === 'flow' && !may(OVERSEES) ? { name: 'meters' } : true
})

async function learnWhoIAm(): Promise<void> {
  try {
    setMe(await get<Me>('/me'))
  } catch {
    // The page asks the server itself and shows what it answers.
  }
}

// A new build was deployed and this page's own files are gone: the reload gets the new ones.
window.addEventListener('vite:preloadError', () => location.reload())
