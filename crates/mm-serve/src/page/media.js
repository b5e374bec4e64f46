// ---- Media of the server ---------------------------------------------------------------------------------------------
/** With a key, media are fetched with its header and shown from memory: images once they come near the visible part. */
const fetchMedia = (address) => request(address).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
const nearby = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter(({ isIntersecting }) => isIntersecting)) {
    nearby.unobserve(target);
    fetchMedia(target.dataset.address).then((address) => { target.src = address; }, () => target.onerror());
  }
}, { rootMargin: '400px' });

/** The image, player or video of a result. */
function makeMedia({ modality, url }, name) {
  const { href, origin } = new URL(url, location.href), makeMissing = () => make('span', { className: 'missing soft', t: 'missing' });
  if (origin !== location.origin) return makeMissing();
  if (modality === 'image') {
    const image = make('img', { alt: name, loading: 'lazy', onerror: () => image.replaceWith(makeMissing()) });
    if (!key) return Object.assign(image, { src: href });
    image.dataset.address = href;
    image.onload = () => URL.revokeObjectURL(image.src);
    nearby.observe(image);
    return image;
  }
  const player = make(modality, { controls: true, preload: modality === 'video' ? 'metadata' : 'none', ariaLabel: name });
  if (!key) return Object.assign(player, { src: href });
  const button = makeButton('load', async () => {
    player.src = await fetchMedia(href).catch(() => '');
    button.replaceWith(player.getAttribute('src') ? player : makeMissing());
    player.play().catch(() => {});
  }, { values: { modality: () => translate(modality).toLowerCase() } });
  return button;
}

