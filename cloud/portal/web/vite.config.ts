/// <reference types="vite/client" />
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath, URL } from 'node:url'
import vue from '@vitejs/plugin-vue'
import { defineConfig, type Plugin } from 'vite'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** Writes /sw.js: src/service_worker.js with the list of this build's files and its version. */
function serviceWorker(): Plugin {
  return {
    name: 'aquacis-service-worker',
    apply: 'build',
    generateBundle(_options, bundle) {
      const built = Object.keys(bundle).filter((file) => file !== 'index.html')
      const files = ['/', ...[...built, ...readdirSync(here('./public'))].map((file) => `/${file}`)]
      const digest = createHash('sha256')
      for (const output of Object.values(bundle)) {
        digest.update(output.type === 'chunk' ? output.code : output.source)
      }
      const source = readFileSync(here('./src/service_worker.js'), 'utf8')
        .replace('__VERSION__', digest.digest('hex').slice(0, 12))
        .replace('__FILES__', JSON.stringify(files.sort()))
      this.emitFile({ type: 'asset', fileName: 'sw.js', source })
    },
  }
}

export default defineConfig(async ({ mode }) => ({
  plugins: [
    vue(),
    serviceWorker(),
    // `npm run dev` answers /api and /oidc itself; a build knows nothing of it.
    ...(mode === 'fake' ? [(await import('./dev/fake_api.ts')).fakeApi()] : []),
  ],
  resolve: { alias: { '@': here('./src') } },
  define: {
    __VUE_OPTIONS_API__: false,
    __VUE_PROD_DEVTOOLS__: false,
    __VUE_I18N_FULL_INSTALL__: false,
    __VUE_I18N_LEGACY_API__: false,
    __INTLIFY_PROD_DEVTOOLS__: false,
  },
  build: {
    target: 'es2022',
    // An inlined asset is a data: URL, which the page's content security policy refuses for fonts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
}))
