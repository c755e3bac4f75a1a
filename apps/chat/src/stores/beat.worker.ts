/** A clock that goes on while the window is hidden. */
onmessage = ({ data }: MessageEvent<number>) => setInterval(() => postMessage(null), data)
