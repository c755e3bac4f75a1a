import { createPinia } from 'pinia'
import { createApp } from 'vue'
import App from '@/App.vue'
import { i18n } from '@/i18n'
import { createAppRouter } from '@/router'
import '@/styles/tokens.css'
import '@/styles/base.css'
import { seed } from './seed'

const query = new URLSearchParams(location.search)
seed(Number(query.get('messages') ?? 60))

const app = createApp(App)
const pinia = createPinia()
app.use(pinia)
app.use(i18n)
app.use(createAppRouter(pinia))
app.mount('#app')
