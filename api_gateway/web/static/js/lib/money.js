// Money. Amounts are JSON numbers in the currency's major unit; they are compared as whole minor units, never as
// fractions.

// Decimals by ISO 4217. Some browsers round a few currencies to whole units, and the last digits of a price must never
// be lost.
const WITHOUT_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(" ");
const WITH_THREE = "BHD IQD JOD KWD LYD OMR TND".split(" ");

/** Those that forms offer. */
export const CURRENCIES =
  "USD EUR GBP CHF JPY AUD BHD BRL CAD CNY CZK DKK HKD HUF ILS INR KRW KWD MXN NOK NZD PLN SEK SGD TRY ZAR".split(" ");

const formats = new Map();

function formatOf(currency) {
  let format = formats.get(currency);
  if (!format) {
    const digits = { minimumFractionDigits: decimalsOf(currency), maximumFractionDigits: decimalsOf(currency) };
    try {
      format = new Intl.NumberFormat(undefined, { style: "currency", currency, ...digits });
    } catch {
      // Intl does not know the currency: show a plain number.
      format = new Intl.NumberFormat(undefined, digits);
    }
    formats.set(currency, format);
  }
  return format;
}

/** The number of decimals of a currency: 2 for USD, 0 for JPY, 3 for KWD. */
export function decimalsOf(currency) {
  if (WITHOUT_DECIMALS.includes(currency)) return 0;
  return WITH_THREE.includes(currency) ? 3 : 2;
}

/** "$1,250.00", in the reader's locale; a dash if there is no amount. */
export function formatMoney(amount, currency) {
  return typeof amount === "number" ? formatOf(currency).format(amount) : "—";
}

/** A round amount for the axis of a chart; without decimals if all marks are whole. */
export function formatMark(amount, currency, isWhole) {
  if (!isWhole) return formatMoney(amount, currency);
  const key = `${currency} whole`;
  if (!formats.has(key)) {
    const { style, currency: known } = formatOf(currency).resolvedOptions();
    const digits = { minimumFractionDigits: 0, maximumFractionDigits: 0 };
    formats.set(key, new Intl.NumberFormat(undefined, { style, currency: known, ...digits }));
  }
  return formats.get(key).format(amount);
}

/** The currency's symbol, for an input field. */
export function symbolOf(currency) {
  const part = formatOf(currency).formatToParts(0).find(({ type }) => type === "currency");
  return part ? part.value : currency;
}

/** The amount as plain digits for an input field: 1250 becomes "1250.00". */
export function inputText(amount, currency) {
  return amount.toFixed(decimalsOf(currency));
}

/** Whole minor units, for comparing. */
export function minorUnits(amount, currency) {
  return Math.round(amount * 10 ** decimalsOf(currency));
}

/**
 * The typed amount as a number, or null if it is not clearly one amount. An ambiguous separator is refused: a wrong
 * guess would multiply a bid by a thousand.
 */
export function parseAmount(text, currency) {
  const decimals = decimalsOf(currency);
  const compact = text.replace(/[\s\u00a0\u202f'’]/g, "");
  const fraction = decimals > 0 ? `{1,${decimals}}` : null;
  let digits = null;
  if (/^\d+$/.test(compact)) {
    digits = compact;
  } else if (fraction && new RegExp(`^\\d*\\.\\d${fraction}$`).test(compact)) {
    digits = compact;
  } else if (decimals === 2 && /^\d+,\d{1,2}$/.test(compact)) {
    digits = compact.replace(",", "."); // "12,50"
  } else if (decimals === 0 && /^\d{1,3}(,\d{3})+$/.test(compact)) {
    digits = compact.replaceAll(",", ""); // "12,000"
  } else if (decimals === 2 && /^\d{1,3}(,\d{3})+(\.\d{1,2})?$/.test(compact)) {
    digits = compact.replaceAll(",", ""); // "1,234.50"
  } else if (decimals === 2 && /^\d{1,3}(\.\d{3})+,\d{1,2}$/.test(compact)) {
    digits = compact.replaceAll(".", "").replace(",", "."); // "1.234,50"
  }
  if (digits === null) return null;
  const amount = Number(digits);
  // With more than 15 digits a binary number cannot tell neighbouring cents apart.
  const significant = digits.replace(".", "").replace(/^0+/, "");
  return amount > 0 && significant.length <= 15 ? amount : null;
}
