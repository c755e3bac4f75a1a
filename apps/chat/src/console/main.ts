import { createApp } from 'vue'
import { i18n } from '@/i18n'
import ConsoleApp from './ConsoleApp.vue'
import { addConsoleTexts } from './i18n'
import { createConsoleRouter } from './router'
import { browserConsole, CONSOLE } from './session'
import '@/styles/tokens.css'
import '@/styles/base.css'

const session = browserConsole()
const app = createApp(ConsoleApp)
app.use(i18n)
app.provide(CONSOLE, session)
void addConsoleTexts().then(() => {
  app.use(createConsoleRouter(session))
  app.mount('#app')
})
